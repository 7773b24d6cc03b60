//! Sends the commands of one pipeline over a connection and sorts their replies.

use std::fmt;

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Pipeline, RedisError, Value};

use super::scripts::{Script, in_full};
use super::trouble::{Failure, Trouble};

/// Connection to one server, or to all nodes of a cluster.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Connection::Server(_) => "Server",
            Connection::Cluster(_) => "Cluster",
        })
    }
}

/// Replies to the commands of a pipeline, in their order.
#[derive(Debug)]
pub(super) struct Replies {
    /// `Nil` for a command that has none.
    values: Vec<Value>,
    /// First error that says something about the store.
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

/// Sends the commands of a pipeline. Where the store has forgotten a script, it gets it again with the command.
pub(super) async fn send(connection: &Connection, pipeline: &Pipeline) -> Result<Replies, Failure> {
    match connection {
        Connection::Server(server) => send_to_server(server.clone(), pipeline).await,
        Connection::Cluster(cluster) => Ok(send_to_cluster(cluster, pipeline).await),
    }
}

async fn send_to_server(mut connection: MultiplexedConnection, pipeline: &Pipeline) -> Result<Replies, Failure> {
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

/// Sends each command to its node, all at once. The client library follows slots that have moved.
async fn send_to_cluster(connection: &ClusterConnection, pipeline: &Pipeline) -> Replies {
    let replies = join_all(pipeline.cmd_iter().map(|command| async move {
        let mut connection = connection.clone();
        let reply = connection.req_packed_command(command).await;
        let lacks_script = match &reply {
            Ok(value) => lacks_script(value),
            Err(error) => error.code() == Some("NOSCRIPT"),
        };
        match in_full(command) {
            Some(in_full) if lacks_script => connection.req_packed_command(&in_full).await,
            _ => reply,
        }
    }));
    let mut failure = None;
    let mut value = |reply: Result<Value, RedisError>| {
        reply.unwrap_or_else(|error| {
            failure.get_or_insert(Failure::from(error));
            Value::Nil
        })
    };
    let values = replies.await.into_iter().map(&mut value).collect();
    let replies = Replies::new(values);
    Replies {
        failure: failure.or(replies.failure),
        ..replies
    }
}
