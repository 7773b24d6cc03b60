//! Parses raw HTTP/1.1 messages by its own rules, because a test that used hyper's parser could not find its errors.

/// Head of a message: its first line, and its fields as they were sent.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub first: String,
    pub fields: Vec<(String, String)>,
}

/// Message, as far as it has arrived.
#[derive(Debug, Default)]
pub struct Message {
    pub head: Option<Head>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Index of its end; `None` if the message is not complete.
    pub end: Option<usize>,
    /// Violations that a strict reader finds.
    pub defects: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// Returns a head for bytes that are not a head.
    pub fn broken(bytes: &[u8]) -> Self {
        Self {
            first: latin(bytes),
            fields: Vec::new(),
        }
    }

    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// Returns the status of an answer; 0 if there is none.
    pub fn status(&self) -> u16 {
        self.target().parse().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// Parses a request at the start of `bytes`.
pub fn request(bytes: &[u8]) -> Message {
    let Some((head, start, mut defects)) = head(bytes) else {
        return Message::default();
    };
    if head.all("host").len() != 1 {
        defects.push("not one Host".to_owned());
    }
    if head.first.split(' ').count() != 3 || !head.first.ends_with(" HTTP/1.1") {
        defects.push(format!("request line {:?}", head.first));
    }
    let framing = framing(&head, &mut defects).unwrap_or(Framing::Nothing);
    read(head, start, framing, false, bytes, defects)
}

/// Parses an answer at the start of `bytes`; `closed` means that no bytes follow.
pub fn answer(bytes: &[u8], to_head: bool, closed: bool) -> Message {
    let Some((head, start, mut defects)) = head(bytes) else {
        return Message::default();
    };
    // hyper answers HTTP/1.0 requests with HTTP/1.0.
    if !(head.first.starts_with("HTTP/1.1 ") || head.first.starts_with("HTTP/1.0 "))
        || !(100..600).contains(&head.status())
    {
        defects.push(format!("status line {:?}", head.first));
    }
    let framing = framing(&head, &mut defects);
    let framing = match head.status() {
        100..=199 | 204 | 304 => Framing::Nothing,
        _ if to_head => Framing::Nothing,
        _ => framing.unwrap_or(Framing::UntilClose),
    };
    read(head, start, framing, closed, bytes, defects)
}

fn head(bytes: &[u8]) -> Option<(Head, usize, Vec<String>)> {
    let end = find(bytes, b"\r\n\r\n")?;
    let text = latin(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let mut head = Head {
        first: lines.next().unwrap_or_default().to_owned(),
        fields: Vec::new(),
    };
    let mut defects = Vec::new();
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        defects.push("a bare CR, LF or NUL".to_owned());
    }
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            defects.push(format!("field line {line:?}"));
        }
        head.fields
            .push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Some((head, end + 4, defects))
}

fn framing(head: &Head, defects: &mut Vec<String>) -> Option<Framing> {
    let (lengths, codings) = (head.all("content-length"), head.all("transfer-encoding"));
    if lengths.len() + codings.len() > 1 {
        defects.push("framed twice".to_owned());
    }
    if let Some(coding) = codings.first() {
        if *coding != "chunked" {
            defects.push(format!("transfer coding {coding:?}"));
        }
        return Some(Framing::Chunked);
    }
    let length = lengths.first()?;
    if !length.chars().all(|c| c.is_ascii_digit()) {
        defects.push(format!("length {length:?}"));
    }
    Some(Framing::Length(length.parse().unwrap_or_default()))
}

fn read(head: Head, start: usize, framing: Framing, closed: bool, bytes: &[u8], defects: Vec<String>) -> Message {
    let rest = &bytes[start..];
    let mut message = Message {
        head: Some(head),
        defects,
        ..Message::default()
    };
    let end = match framing {
        Framing::Nothing => Some(0),
        Framing::Length(length) => {
            message.body = rest[..length.min(rest.len())].to_vec();
            (rest.len() >= length).then_some(length)
        }
        Framing::UntilClose => {
            message.body = rest.to_vec();
            closed.then_some(rest.len())
        }
        Framing::Chunked => message.chunks(rest),
    };
    message.end = end.map(|end| start + end);
    message
}

impl Message {
    /// Reads chunks and trailers; returns where they end.
    fn chunks(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let line = latin(line(bytes, &mut at)?);
            let Some(size) = usize::from_str_radix(&line, 16).ok().filter(|_| !line.starts_with('+')) else {
                self.defects.push(format!("chunk size {line:?}"));
                return None;
            };
            if size == 0 {
                break;
            }
            let rest = &bytes[at..];
            self.body.extend_from_slice(&rest[..size.min(rest.len())]);
            if rest.get(size..size + 2)? != b"\r\n" {
                self.defects.push("a chunk without an end".to_owned());
                return None;
            }
            at += size + 2;
        }
        loop {
            let line = latin(line(bytes, &mut at)?);
            if line.is_empty() {
                return Some(at);
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            self.trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// Returns the line at `at`, and moves `at` past it.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &bytes[*at..];
    let end = find(rest, b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
