//! What every client of somebody else's HTTP server reads of an answer, or of there being none.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderValue;

/// Seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(header: &HeaderValue) -> Option<Duration> {
    let text = header.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

/// reqwest says what failed on top and why underneath.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_rest_is_seconds_or_a_date() {
        let read = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(read(&date).is_some_and(|rest| rest > Duration::from_secs(55)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(read("soon"), None);
    }
}
