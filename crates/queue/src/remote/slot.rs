//! The place of the one connection to a server, made anew when it is lost or gives no answer.
//!
//! It is not the client library's `ConnectionManager`: that one keeps a connection whose answer timed out, so that a call may be repeated into a
//! partition for as long as TCP believes in it.

use std::{io, time::Duration};

use redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::timeout};

use super::config::RedisConfig;

/// Longest wait for one answer; a call of the largest size takes about a second.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// A server as this process reaches it.
pub(super) struct Slot {
    config: RedisConfig,
    /// The connection, and its number, which tells it from those before it.
    connection: Mutex<(u64, Option<MultiplexedConnection>)>,
}

impl Slot {
    /// Names a server without connecting to it.
    pub(super) fn new(config: RedisConfig) -> Self {
        Self { config, connection: Mutex::default() }
    }

    /// Sends commands once, and returns the answer of each, waiting at most `left`; without an answer the connection is given up. An error among the
    /// answers is returned in their place: the first, which made the others fail.
    pub(super) async fn send(&self, commands: &Pipeline, left: Duration) -> RedisResult<Vec<Value>> {
        let (number, mut connection) = self.connect(left).await?;
        let answers = timeout(ANSWER.min(left), connection.send_packed_commands(commands, 0, commands.len())).await;
        let answers = answers.unwrap_or_else(|_| Err(silence()));
        if answers.as_ref().is_err_and(|error| !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)) {
            let mut known = self.connection.lock().await;
            if known.0 == number {
                known.1 = None;
            }
        }
        without_error(answers?)
    }

    async fn connect(&self, left: Duration) -> RedisResult<(u64, MultiplexedConnection)> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = &known.1 {
            return Ok((known.0, connection.clone()));
        }
        let settings = |error: crate::Error| {
            RedisError::from((ErrorKind::InvalidClientConfig, "the connection is set up wrongly", error.to_string()))
        };
        let client = self.config.client().map_err(settings)?;
        // The deadlines are those of the futures here, which give the connection up.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let made = timeout(CONNECT.min(left), client.get_multiplexed_async_connection_with_config(&config)).await;
        let made = made.unwrap_or_else(|_| Err(silence()))?;
        *known = (known.0 + 1, Some(made.clone()));
        Ok((known.0, made))
    }
}

fn silence() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "no answer").into()
}

/// Returns answers without an error among them.
pub(super) fn without_error(answers: Vec<Value>) -> RedisResult<Vec<Value>> {
    let error = answers.iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(error.clone()),
        _ => None,
    });
    error.map_or(Ok(answers), |error| Err(error.into()))
}
