//! ipvs/server.
