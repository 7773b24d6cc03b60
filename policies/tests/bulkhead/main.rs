//! Checks the promises of a bulkhead on a virtual clock: a simulation serves the backend, and all randomness comes from
//! a seed.

mod fairness;
mod leaks;
mod simulation;
