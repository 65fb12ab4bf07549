//! ipvs/persistence.
