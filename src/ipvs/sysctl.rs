//! ipvs/sysctl.
