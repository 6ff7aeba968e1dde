//! The HTTP calls. They hide nothing: tests see the status, headers and body as the server sent them.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use crate::oracle::history::HistoryMessage;

/// One caller at one gateway.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// The server's answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// Longer than any answer the contract allows.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest page of a history.
const HISTORY_PAGE: usize = 200;

impl Reply {
    /// The body, or null when it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The problem's code, or nothing.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// A header's text, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// # Errors
    /// When the status is none of success.
    pub fn ok(self) -> Result<Value> {
        if !self.status.is_success() {
            bail!("{}: {}", self.status, self.text);
        }
        Ok(self.json())
    }
}

impl Api {
    /// A caller without a token.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(base: &str) -> Result<Self> {
        Self::of(reqwest::Client::builder(), base)
    }

    /// A caller without a token, with a local address of its own.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn from(source: IpAddr, base: &str) -> Result<Self> {
        Self::of(reqwest::Client::builder().local_address(source), base)
    }

    fn of(client: reqwest::ClientBuilder, base: &str) -> Result<Self> {
        let client = client.timeout(TIMEOUT).build()?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token: None })
    }

    /// The same client and gateway as another caller.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same caller at another gateway.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request that is not sent yet, with the caller's token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// # Errors
    /// When no answer came.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply> {
        let response = request.send().await.context("no answer")?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Reply { status, headers, text: response.text().await.context("answer cut short")? })
    }

    /// # Errors
    /// When no answer came.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::GET, path)).await
    }

    /// # Errors
    /// When no answer came.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// # Errors
    /// When no answer came.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// # Errors
    /// When no answer came.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates a group and returns its id.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create_group(&self, members: &[u64], title: &str) -> Result<u64> {
        let body = json!({"type": 2, "memberIds": members, "title": title});
        let chat = self.post("/v1/chats", &body).await?.ok().context("create a group")?;
        chat["id"].as_u64().context("a chat without an id")
    }

    /// The whole history of a chat, oldest first, and whether any page was stale.
    ///
    /// # Errors
    /// When a page is refused or malformed.
    pub async fn history(&self, chat: u64) -> Result<(Vec<HistoryMessage>, bool)> {
        let (mut messages, mut stale, mut after) = (Vec::new(), false, 0);
        loop {
            let path = format!("/v1/chats/{chat}/messages?after={after}&limit={HISTORY_PAGE}");
            let page = self.get(&path).await?.ok().with_context(|| format!("history of chat {chat}"))?;
            stale |= page["stale"].as_bool().unwrap_or(false);
            let more = page["more"].as_bool().context("a page without `more`")?;
            let page: Vec<HistoryMessage> = serde_json::from_value(page["messages"].clone())?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            messages.extend(page);
            if !more {
                break;
            }
        }
        Ok((messages, stale))
    }
}
