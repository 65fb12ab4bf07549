//! ipvs/estimator.
