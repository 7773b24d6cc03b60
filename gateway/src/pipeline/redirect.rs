//! Answers a request to a redirect.

use http::{HeaderValue, header};

use super::decision::AuthorizedRequest;
use super::exchange::Exchange;
use crate::message::Response;
use crate::plan::redirect::Redirect;
use crate::rejection::Rejection;
use crate::response::Content;
use crate::template::Sources;

impl Exchange<'_> {
    pub(super) fn redirect(
        &mut self,
        redirect: &Redirect,
        request: &AuthorizedRequest<'_>,
    ) -> Result<Response<Content>, Rejection> {
        let fields = &request.head.headers;
        let claims = request.principal.caller.claims.as_ref();
        let sources = Sources::of_request(&request.captures, &request.target.query, fields, claims);
        let host = fields
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let location = redirect
            .location(&sources, host, request.target.uri.query())
            .map_err(|missing| {
                self.record
                    .note_fault(format!("{}: {}", missing.placeholder, missing.why));
                Rejection::malformed("a value that this route needs is missing or cannot be used")
            })?;
        let mut response = Response::new(Content::Empty);
        *response.status_mut() = redirect.status;
        response.headers_mut().insert(header::LOCATION, location);
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        Ok(response)
    }
}
