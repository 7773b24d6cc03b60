//! When an answer that goes on has to end because the process does.

use std::future::Future;
use std::pin::Pin;

/// Ready when we are about to go.
pub type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;
