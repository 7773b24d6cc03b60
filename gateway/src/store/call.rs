//! Sends one pipeline over a connection and sorts its replies.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Pipeline, Value};

use super::scripts::Script;
use super::trouble::{Failure, Trouble};

/// Replies to the commands of a pipeline, in their order.
#[derive(Debug)]
pub(super) struct Replies {
    values: Vec<Value>,
    /// First error reply that says something about the store.
    failure: Option<Failure>,
}

impl Replies {
    fn new(values: Vec<Value>) -> Replies {
        let failure = values.iter().find_map(failure_of);
        Replies { values, failure }
    }

    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    pub(super) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.failure.as_ref().map(|failure| failure.trouble)
    }
}

/// Returns the error that a reply is, or that is one of its parts.
fn failure_of(value: &Value) -> Option<Failure> {
    let error = |value: &Value| match value {
        Value::ServerError(error) => Some(Failure::of_reply(error)),
        _ => None,
    };
    match value {
        Value::Array(parts) => parts.iter().find_map(error),
        value => error(value),
    }
}

fn lacks_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// Sends a pipeline. Where the store has forgotten a script, it is loaded and the command sent again.
pub(super) async fn send(mut connection: MultiplexedConnection, pipeline: &Pipeline) -> Result<Replies, Failure> {
    let mut values = ask(&mut connection, pipeline).await?;
    if values.iter().any(lacks_script) {
        let mut again = Pipeline::new();
        for script in Script::ALL {
            again.add_command(script.load());
        }
        let lacking = pipeline
            .cmd_iter()
            .zip(&values)
            .filter(|(_, value)| lacks_script(value));
        for (command, _) in lacking {
            again.add_command(command.clone());
        }
        let replies = ask(&mut connection, &again).await?;
        let repeated = replies.into_iter().skip(Script::ALL.len());
        for (value, reply) in values.iter_mut().filter(|value| lacks_script(value)).zip(repeated) {
            *value = reply;
        }
    }
    Ok(Replies::new(values))
}

async fn ask(connection: &mut MultiplexedConnection, pipeline: &Pipeline) -> Result<Vec<Value>, Failure> {
    let values = connection.req_packed_commands(pipeline, 0, pipeline.len()).await?;
    if values.len() == pipeline.len() {
        Ok(values)
    } else {
        Err(Failure::new(
            Trouble::Unexpected,
            "another number of replies than of commands",
        ))
    }
}
