//! ipvs/timer.
