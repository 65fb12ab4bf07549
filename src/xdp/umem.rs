//! The packet memory of one worker, and who holds each frame of it.

use std::num::NonZeroU32;

use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::{FrameDesc, Umem};

use crate::xdp::error::{XdpError, errno, reason};

/// Of <linux/if_xdp.h>: the packet goes on in the next descriptor.
const XDP_PKT_CONTD: u32 = 1;

/// One frame of a UMEM, held by user space. Whoever has this value is the only one that touches the frame's bytes;
/// giving it to a ring gives the frame to the kernel. It can be neither copied nor cloned, so a frame is never in two
/// places.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost: put it into the pool or into a ring"]
pub(super) struct OwnedFrame {
    descriptor: FrameDesc,
    len: usize,
}

impl OwnedFrame {
    /// The frame that a ring has just handed over; the caller gives up its descriptor.
    pub(super) fn from_ring(descriptor: FrameDesc) -> Self {
        OwnedFrame { len: descriptor.lengths().data(), descriptor }
    }

    /// The descriptor to put on a fill ring; the frame is the kernel's from then on.
    pub(super) fn into_descriptor(self) -> FrameDesc {
        self.descriptor
    }

    /// Length of the packet, or of the part of it, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Sets the length of the packet in bytes; at most the frame's capacity, to which it is cut when sent.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// Whether the packet goes on in the frame that follows in the ring.
    pub(super) fn continues(&self) -> bool {
        self.descriptor.has_more_frames()
    }

    /// Sets whether it does.
    pub(super) fn set_continues(&mut self, continues: bool) {
        self.descriptor.set_options(if continues { XDP_PKT_CONTD } else { 0 });
    }
}

/// A UMEM and its free frames.
#[derive(Debug)]
pub(super) struct FramePool {
    umem: Umem,
    free: Vec<OwnedFrame>,
    frames: usize,
}

impl FramePool {
    /// Allocates the memory; all frames are free. `ring` is the size of each interface's fill and completion ring. On huge
    /// pages the size of the memory is to be a multiple of theirs.
    pub(super) fn new(
        frame_size: u32,
        frames: u32,
        ring: QueueSize,
        huge_pages: bool,
    ) -> Result<Self, XdpError> {
        let failed = |error: &(dyn std::error::Error + 'static)| XdpError::Umem {
            frames,
            frame_size,
            reason: reason(error),
            errno: errno(error),
        };
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(frame_size).map_err(|error| failed(&error))?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .map_err(|error| failed(&error))?;
        let count = NonZeroU32::new(frames).unwrap_or(NonZeroU32::MIN);
        let (umem, descriptors) = Umem::new(config, count, huge_pages).map_err(|error| failed(&error))?;
        Ok(FramePool {
            umem,
            frames: descriptors.len(),
            free: descriptors.into_iter().map(OwnedFrame::from_ring).collect(),
        })
    }

    /// The memory, to open sockets on.
    pub(super) fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Takes a free frame. Length and continuation are left from its former use.
    pub(super) fn take(&mut self) -> Option<OwnedFrame> {
        self.free.pop()
    }

    /// Takes a frame back.
    pub(super) fn put(&mut self, frame: OwnedFrame) {
        self.free.push(frame);
    }

    /// Number of all frames.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Number of free frames.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// The bytes of a frame from the start of the packet to the end of the frame: the packet, and room behind it.
    pub(super) fn buffer<'a>(&'a self, frame: &'a mut OwnedFrame) -> &'a mut [u8] {
        // SAFETY: an `OwnedFrame` is made only of this UMEM's descriptors and of what the rings of sockets on this UMEM
        // return, and each worker has one pool and keeps frames to itself; holding it says that neither the kernel nor
        // anyone else uses the frame.
        let mut data = unsafe { self.umem.data_mut(&mut frame.descriptor) };
        let mut cursor = data.cursor();
        let capacity = cursor.buf_len();
        cursor.set_pos(capacity);
        let whole: *mut [u8] = data.contents_mut();
        // SAFETY: `whole` is the frame's memory, which lives as long as `self`, and `frame` stays mutably borrowed for
        // as long as the slice, so there is no second one.
        unsafe { &mut *whole }
    }

    /// Has the start of the packet brought from memory while something else is done.
    pub(super) fn prefetch(&self, frame: &OwnedFrame) {
        // SAFETY: as in `buffer`.
        let data = unsafe { self.umem.data(&frame.descriptor) };
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint about memory of this UMEM; it changes nothing.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(data.contents().as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = data;
    }

    /// The descriptor to put on a transmit ring, with the packet's length in it; the frame is the kernel's from then on.
    pub(super) fn seal(&self, mut frame: OwnedFrame) -> FrameDesc {
        // SAFETY: as in `buffer`.
        unsafe { self.umem.data_mut(&mut frame.descriptor) }.cursor().set_pos(frame.len);
        frame.descriptor
    }
}
