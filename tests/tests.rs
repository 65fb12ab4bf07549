//! Tests.

mod ipvsadm;
