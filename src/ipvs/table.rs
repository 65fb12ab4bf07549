//! ipvs/table.
