//! ipvs/service.
