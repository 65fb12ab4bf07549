//! Packets that lie in several frames: all but the last frame of one say that it continues.

use crate::ipvs::verdict::DropReason;
use crate::xdp::umem::{FramePool, OwnedFrame};
use crate::xdp::{ETHERNET, HEADROOM};

/// Bytes that the engine may add to a packet: the headers of a tunnel, or addresses and ports that take more digits.
pub(super) const GROWTH: usize = 256;

/// How many frames of `frame_size` bytes the longest packet of an interface with this MTU takes.
pub(super) fn frames_for(mtu: u32, frame_size: u32) -> u32 {
    (mtu + ETHERNET + GROWTH as u32).div_ceil(frame_size - HEADROOM)
}

/// Longest frame that is decided about where it lies, if packets may take several: the engine needs room behind it.
pub(super) fn longest_in_place(frame_size: u32) -> usize {
    (frame_size - HEADROOM) as usize - GROWTH
}

/// Moves the beginning of a packet whose end has not come yet from the end of a burst to `torn`.
pub(super) fn tear(burst: &mut Vec<OwnedFrame>, torn: &mut Vec<OwnedFrame>) {
    let whole = burst.iter().rposition(|frame| !frame.continues()).map_or(0, |last| last + 1);
    torn.extend(burst.drain(whole..));
}

/// How many of these frames go where there is room for `room`, without a packet that is cut.
pub(super) fn fitting(frames: &[OwnedFrame], room: usize) -> usize {
    let room = room.min(frames.len());
    frames[..room].iter().rposition(|frame| !frame.continues()).map_or(0, |last| last + 1)
}

/// How many packets end in these frames.
pub(super) fn packets<'a>(frames: impl IntoIterator<Item = &'a OwnedFrame>) -> usize {
    frames.into_iter().filter(|frame| !frame.continues()).count()
}

/// Copies a packet together; its length, or `None` if `room` is too small for it.
pub(super) fn gather(pool: &FramePool, frames: &mut [OwnedFrame], room: &mut [u8]) -> Option<usize> {
    let mut end = 0;
    for frame in frames {
        let len = frame.len();
        let bytes = pool.buffer(frame).get(..len)?;
        room.get_mut(end..end + len)?.copy_from_slice(bytes);
        end += len;
    }
    Some(end)
}

/// Spreads a packet over as many frames as it takes: those of `frames` first, then free ones. Frames that are left go to
/// the pool, and all of them if it has too few.
pub(super) fn scatter(
    pool: &mut FramePool,
    bytes: &[u8],
    frames: &mut Vec<OwnedFrame>,
) -> Result<(), DropReason> {
    let mut rest = bytes;
    let mut used = 0;
    loop {
        if used == frames.len() {
            match pool.take() {
                Some(frame) => frames.push(frame),
                None => {
                    frames.drain(..).for_each(|frame| pool.put(frame));
                    return Err(DropReason::NoFrame);
                }
            }
        }
        let frame = &mut frames[used];
        let room = pool.buffer(frame);
        let (here, behind) = rest.split_at(rest.len().min(room.len()));
        room[..here.len()].copy_from_slice(here);
        frame.set_len(here.len());
        frame.set_continues(!behind.is_empty());
        (rest, used) = (behind, used + 1);
        if rest.is_empty() {
            frames.drain(used..).for_each(|frame| pool.put(frame));
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use xsk_rs::FrameDesc;

    use super::*;

    /// Frames of which those of a `+` continue.
    fn frames(pattern: &str) -> Vec<OwnedFrame> {
        let frame = |mark| {
            let mut frame = OwnedFrame::from_ring(FrameDesc::default());
            frame.set_continues(mark == '+');
            frame
        };
        pattern.chars().map(frame).collect()
    }

    fn pattern(frames: &[OwnedFrame]) -> String {
        frames.iter().map(|frame| if frame.continues() { '+' } else { '.' }).collect()
    }

    #[test]
    fn a_packet_whose_end_is_missing_waits_for_it() {
        for (burst, whole, rest) in [
            ("", "", ""),
            ("..", "..", ""),
            (".++.", ".++.", ""),
            (".++.++", ".++.", "++"),
            ("+++", "", "+++"),
        ] {
            let (mut burst, mut torn) = (frames(burst), Vec::new());
            tear(&mut burst, &mut torn);
            assert_eq!((pattern(&burst).as_str(), pattern(&torn).as_str()), (whole, rest));
        }
    }

    #[test]
    fn what_does_not_fit_as_a_whole_does_not_go_in_part() {
        for (outgoing, room, going) in
            [("....", 3, 3), (".++..", 3, 1), (".++..", 4, 4), ("++.", 2, 0), ("++.", 9, 3), ("", 5, 0)]
        {
            assert_eq!(fitting(&frames(outgoing), room), going, "{outgoing} into {room}");
        }
        assert_eq!(packets(&frames(".++..")), 3);
    }

    #[test]
    fn jumbo_frames_take_a_few() {
        let most = crate::xdp::LARGEST_MTU;
        assert_eq!((frames_for(most, 2048), frames_for(most, 4096)), (6, 3));
        assert_eq!(longest_in_place(2048), 1536);
    }
}
