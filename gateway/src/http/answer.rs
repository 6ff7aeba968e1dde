//! The form of answers: views of chats and messages, problem documents, the OpenAPI document.

pub mod openapi;
pub mod pages;
pub mod problem;
pub mod refusals;
pub mod schema;
pub mod view;
