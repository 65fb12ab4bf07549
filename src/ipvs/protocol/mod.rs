//! Protocol state tables.
