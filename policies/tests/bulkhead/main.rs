//! What a bulkhead promises to those who share it, on a virtual clock: the backend is served by the
//! simulation, and everything that would be chance comes from a seed.

mod fairness;
mod leaks;
mod simulation;
