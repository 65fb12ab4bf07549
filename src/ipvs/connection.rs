//! ipvs/connection.
