//! Tests.

mod nanny;
