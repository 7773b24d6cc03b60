//! Requests and answers of HTTP, whatever version carries them: their heads, and the fields in these.

mod field_map;

pub use field_map::{FieldMap, FieldName, IntoFieldName, Values};
use http::{Extensions, Method, StatusCode, Uri, Version};

/// Head of a request.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: FieldMap,
    /// Marks of the connection that the request came over.
    pub extensions: Extensions,
}

/// Head of an answer.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub headers: FieldMap,
    /// The reason phrase of an HTTP/1.1 answer, if it is not the usual one.
    pub extensions: Extensions,
}

/// Request with its body, or with what stands for it.
#[derive(Debug, Clone, Default)]
pub struct Request<B> {
    head: RequestHead,
    body: B,
}

/// Answer with its body, or with what stands for it.
#[derive(Debug, Clone, Default)]
pub struct Response<B> {
    head: ResponseHead,
    body: B,
}

impl<B> Request<B> {
    /// Creates `GET /` without fields.
    pub fn new(body: B) -> Self {
        Self {
            head: RequestHead::default(),
            body,
        }
    }

    pub const fn from_parts(head: RequestHead, body: B) -> Self {
        Self { head, body }
    }

    pub fn into_parts(self) -> (RequestHead, B) {
        (self.head, self.body)
    }

    pub const fn head(&self) -> &RequestHead {
        &self.head
    }

    pub const fn method(&self) -> &Method {
        &self.head.method
    }

    pub const fn uri(&self) -> &Uri {
        &self.head.uri
    }

    pub const fn version(&self) -> Version {
        self.head.version
    }

    pub const fn headers(&self) -> &FieldMap {
        &self.head.headers
    }

    pub const fn headers_mut(&mut self) -> &mut FieldMap {
        &mut self.head.headers
    }

    pub const fn method_mut(&mut self) -> &mut Method {
        &mut self.head.method
    }

    pub const fn version_mut(&mut self) -> &mut Version {
        &mut self.head.version
    }

    pub const fn uri_mut(&mut self) -> &mut Uri {
        &mut self.head.uri
    }

    pub const fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }

    pub const fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

impl<B> Response<B> {
    /// Creates a 200 without fields.
    pub fn new(body: B) -> Self {
        Self {
            head: ResponseHead::default(),
            body,
        }
    }

    pub const fn from_parts(head: ResponseHead, body: B) -> Self {
        Self { head, body }
    }

    pub fn into_parts(self) -> (ResponseHead, B) {
        (self.head, self.body)
    }

    pub fn map<C>(self, body: impl FnOnce(B) -> C) -> Response<C> {
        Response {
            head: self.head,
            body: body(self.body),
        }
    }

    pub const fn head(&self) -> &ResponseHead {
        &self.head
    }

    pub const fn status(&self) -> StatusCode {
        self.head.status
    }

    pub const fn version(&self) -> Version {
        self.head.version
    }

    pub const fn status_mut(&mut self) -> &mut StatusCode {
        &mut self.head.status
    }

    pub const fn version_mut(&mut self) -> &mut Version {
        &mut self.head.version
    }

    pub const fn headers(&self) -> &FieldMap {
        &self.head.headers
    }

    pub const fn headers_mut(&mut self) -> &mut FieldMap {
        &mut self.head.headers
    }

    pub const fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    pub const fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }

    pub const fn body(&self) -> &B {
        &self.body
    }

    pub const fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    pub fn into_body(self) -> B {
        self.body
    }
}

impl From<http::request::Parts> for RequestHead {
    fn from(head: http::request::Parts) -> Self {
        Self {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers.into(),
            extensions: head.extensions,
        }
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (head, body) = request.into_parts();
        Self::from_parts(head.into(), body)
    }
}

impl From<http::response::Parts> for ResponseHead {
    fn from(head: http::response::Parts) -> Self {
        Self {
            status: head.status,
            version: head.version,
            headers: head.headers.into(),
            extensions: head.extensions,
        }
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (head, body) = response.into_parts();
        Self::from_parts(head.into(), body)
    }
}

impl<B> From<Request<B>> for http::Request<B> {
    fn from(request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        let mut request = Self::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers.into();
        *request.extensions_mut() = head.extensions;
        request
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let (head, body) = response.into_parts();
        let mut response = Self::new(body);
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers.into();
        *response.extensions_mut() = head.extensions;
        response
    }
}
