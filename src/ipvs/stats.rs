//! ipvs/stats.
