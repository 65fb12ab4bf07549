//! ipvs/snapshot.
