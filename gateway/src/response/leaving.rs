//! The signal that ends long answers when the process shuts down.

use std::future::Future;
use std::pin::Pin;

/// Future that is ready when the process shuts down.
pub type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;
