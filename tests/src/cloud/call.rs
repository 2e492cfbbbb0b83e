//! Core: names a request to AWS: which service, which operation, upon what.

use serde_json::Value;

use super::bits::from_percent;
use super::http::Head;

/// A service of AWS that the proxy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Simple Storage Service, addressed by path (`/bucket/key`).
    S3,
    /// Kinesis Data Streams.
    Kinesis,
    /// Data Firehose.
    Firehose,
    /// DynamoDB.
    DynamoDb,
    /// Any other one, and what the emulator offers beside them.
    Other,
}

impl Service {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Kinesis => "kinesis",
            Self::Firehose => "firehose",
            Self::DynamoDb => "dynamodb",
            Self::Other => "other",
        }
    }
}

/// An operation of AWS that a fault can be aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "AWS names and describes them")]
pub enum Operation {
    GetObject,
    HeadObject,
    PutObject,
    DeleteObject,
    CopyObject,
    ListObjectsV2,
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    PutRecords,
    PutRecordBatch,
    PutRecord,
    BatchWriteItem,
    PutItem,
    UpdateItem,
    TransactWriteItems,
    Query,
    /// All that is not in this list; a call has its name all the same.
    Other,
}

/// Operations that are named in `X-Amz-Target`.
const TARGETS: [Operation; 8] = [
    Operation::PutRecords,
    Operation::PutRecordBatch,
    Operation::PutRecord,
    Operation::BatchWriteItem,
    Operation::PutItem,
    Operation::UpdateItem,
    Operation::TransactWriteItems,
    Operation::Query,
];

/// Parts of an object or a bucket that are read and written by themselves. None of them is counted
/// as an operation upon the object.
const PARTS: [&str; 12] = [
    "acl",
    "tagging",
    "attributes",
    "torrent",
    "legal-hold",
    "retention",
    "restore",
    "select",
    "versions",
    "versioning",
    "lifecycle",
    "policy",
];

/// The condition under which S3 carries an operation out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    None,
    /// Only if there is no such object yet.
    IfNoneMatch,
    /// Only if the object is still the one that the client knows.
    IfMatch,
}

/// One request, as far as faults are chosen by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who is asked.
    pub service: Service,
    /// To do what.
    pub operation: Operation,
    /// Name of the operation, also of one that is [`Operation::Other`].
    pub name: String,
    /// Of S3 only.
    pub condition: Condition,
    /// Of S3 only; empty without one.
    pub bucket: String,
    /// S3: the key of the object. Others: the stream or the table, known once the body is.
    pub key: String,
    /// Whether the answer has no body.
    pub is_head: bool,
}

impl Call {
    /// Classifies by the head of a request alone: streams and tables stand in the body.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        if let Some(target) = head.header("x-amz-target") {
            return Self::of_target(target);
        }
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        if path.starts_with("/_") || !is_for_s3(head) {
            let name = format!("{} {path}", head.method);
            return Self::new(Service::Other, Operation::Other, name);
        }
        Self::of_object(head, path, &query_names(query))
    }

    fn new(service: Service, operation: Operation, name: String) -> Self {
        Self {
            service,
            operation,
            name,
            condition: Condition::None,
            bucket: String::new(),
            key: String::new(),
            is_head: false,
        }
    }

    fn of_target(target: &str) -> Self {
        let (prefix, name) = target.split_once('.').unwrap_or((target, ""));
        let service = match prefix.split('_').next() {
            Some("Kinesis") => Service::Kinesis,
            Some("Firehose") => Service::Firehose,
            Some("DynamoDB") => Service::DynamoDb,
            _ => Service::Other,
        };
        let known = TARGETS
            .into_iter()
            .find(|operation| format!("{operation:?}") == name);
        let operation = known
            .filter(|_| service != Service::Other)
            .unwrap_or(Operation::Other);
        Self::new(service, operation, name.to_owned())
    }

    fn of_object(head: &Head, path: &str, names: &[&str]) -> Self {
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let operation = object_operation(head, !key.is_empty(), names);
        let name = if operation == Operation::Other {
            let level = if key.is_empty() { "bucket" } else { "object" };
            let part = names.iter().find(|name| **name != "x-id").copied();
            let text = format!("{} {level} {}", head.method, part.unwrap_or_default());
            text.trim_end().to_owned()
        } else {
            format!("{operation:?}")
        };
        let condition = if head.header("if-none-match").is_some() {
            Condition::IfNoneMatch
        } else if head.header("if-match").is_some() {
            Condition::IfMatch
        } else {
            Condition::None
        };
        Self {
            condition,
            bucket: from_percent(bucket),
            key: from_percent(key),
            is_head: head.method == "HEAD",
            ..Self::new(Service::S3, operation, name)
        }
    }

    /// Completes the call by what the body says: the stream or the table it is for.
    pub fn read(&mut self, body: &Value) {
        let members = ["StreamName", "DeliveryStreamName", "TableName", "StreamARN"];
        let stream = members.iter().find_map(|member| body[member].as_str());
        let table = body["RequestItems"]
            .as_object()
            .and_then(|tables| tables.keys().next());
        if let Some(name) = stream.or(table.map(String::as_str)) {
            name.rsplit('/')
                .next()
                .unwrap_or(name)
                .clone_into(&mut self.key);
        }
    }
}

/// A signature names the service in its scope; without one a request by path is for S3.
fn is_for_s3(head: &Head) -> bool {
    let signature = head.header("authorization").unwrap_or_default();
    let scope = signature
        .split("Credential=")
        .nth(1)
        .and_then(|rest| rest.split('/').nth(3));
    scope.is_none_or(|service| service == "s3")
}

fn query_names(query: &str) -> Vec<&str> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split('=').next().unwrap_or(pair))
        .collect()
}

fn object_operation(head: &Head, has_key: bool, names: &[&str]) -> Operation {
    let has = |name| names.contains(&name);
    if names.iter().any(|name| PARTS.contains(name)) {
        return Operation::Other;
    }
    let copies = head.header("x-amz-copy-source").is_some();
    match (head.method.as_str(), has_key) {
        ("GET", false) if has("list-type") => Operation::ListObjectsV2,
        ("GET", true) if !has("uploadId") => Operation::GetObject,
        ("HEAD", true) => Operation::HeadObject,
        ("PUT", true) if has("uploadId") && !copies => Operation::UploadPart,
        ("PUT", true) if has("uploadId") => Operation::Other,
        ("PUT", true) if copies => Operation::CopyObject,
        ("PUT", true) => Operation::PutObject,
        ("DELETE", true) if has("uploadId") => Operation::AbortMultipartUpload,
        ("DELETE", true) => Operation::DeleteObject,
        ("POST", true) if has("uploads") => Operation::CreateMultipartUpload,
        ("POST", true) if has("uploadId") => Operation::CompleteMultipartUpload,
        _ => Operation::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(method: &str, target: &str, headers: &[(&str, &str)]) -> Call {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Call::of(&Head {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.collect(),
            ..Head::default()
        })
    }

    #[test]
    fn each_operation_of_s3_is_told_by_method_query_and_headers() {
        let copy = &[("x-amz-copy-source", "b/other")][..];
        for (method, target, headers, operation) in [
            ("GET", "/b/k?x-id=GetObject", &[][..], Operation::GetObject),
            ("HEAD", "/b/k", &[], Operation::HeadObject),
            ("PUT", "/b/k?x-id=PutObject", &[], Operation::PutObject),
            ("PUT", "/b/k", copy, Operation::CopyObject),
            ("DELETE", "/b/k?versionId=1", &[], Operation::DeleteObject),
            (
                "GET",
                "/b?list-type=2&prefix=a%2F",
                &[],
                Operation::ListObjectsV2,
            ),
            ("GET", "/b/?list-type=2", &[], Operation::ListObjectsV2),
            (
                "POST",
                "/b/k?uploads",
                &[],
                Operation::CreateMultipartUpload,
            ),
            (
                "PUT",
                "/b/k?partNumber=1&uploadId=u",
                &[],
                Operation::UploadPart,
            ),
            (
                "PUT",
                "/b/k?partNumber=1&uploadId=u",
                copy,
                Operation::Other,
            ),
            (
                "POST",
                "/b/k?uploadId=u",
                &[],
                Operation::CompleteMultipartUpload,
            ),
            (
                "DELETE",
                "/b/k?uploadId=u",
                &[],
                Operation::AbortMultipartUpload,
            ),
            ("GET", "/b/k?uploadId=u", &[], Operation::Other),
            ("PUT", "/b/k?tagging", &[], Operation::Other),
            ("PUT", "/b", &[], Operation::Other),
            ("POST", "/b?delete", &[], Operation::Other),
        ] {
            let call = call(method, target, headers);
            assert_eq!(
                (call.service, call.operation),
                (Service::S3, operation),
                "{method} {target}"
            );
            assert_eq!(call.bucket, "b");
        }
    }

    #[test]
    fn an_objects_key_is_whole_and_without_percent_signs() {
        let call = call(
            "PUT",
            "/lake/samples/hot/date%3D2026/a%20b.parquet",
            &[("if-none-match", "*")],
        );
        assert_eq!(call.key, "samples/hot/date=2026/a b.parquet");
        assert_eq!(call.condition, Condition::IfNoneMatch);
        assert_eq!(
            self::call("PUT", "/b/k", &[("if-match", "\"e\"")]).condition,
            Condition::IfMatch
        );
        assert_eq!(self::call("PUT", "/b/k", &[]).condition, Condition::None);
    }

    #[test]
    fn json_services_are_told_by_their_target_and_keep_the_name_of_every_operation() {
        for (target, service, operation, name) in [
            (
                "Kinesis_20131202.PutRecords",
                Service::Kinesis,
                Operation::PutRecords,
                "PutRecords",
            ),
            (
                "Kinesis_20131202.ListShards",
                Service::Kinesis,
                Operation::Other,
                "ListShards",
            ),
            (
                "Firehose_20150804.PutRecordBatch",
                Service::Firehose,
                Operation::PutRecordBatch,
                "PutRecordBatch",
            ),
            (
                "DynamoDB_20120810.BatchWriteItem",
                Service::DynamoDb,
                Operation::BatchWriteItem,
                "BatchWriteItem",
            ),
            (
                "Logs_20140328.PutRecords",
                Service::Other,
                Operation::Other,
                "PutRecords",
            ),
        ] {
            let call = call("POST", "/", &[("x-amz-target", target)]);
            assert_eq!(
                (call.service, call.operation, &call.name[..]),
                (service, operation, name)
            );
        }
    }

    #[test]
    fn a_signature_for_another_service_is_not_taken_for_s3() {
        let scope =
            "AWS4-HMAC-SHA256 Credential=test/20261201/eu-west-1/sts/aws4_request, Signature=0";
        assert_eq!(
            call("POST", "/", &[("authorization", scope)]).service,
            Service::Other
        );
        assert_eq!(
            call(
                "GET",
                "/b/k",
                &[("authorization", &scope.replace("sts", "s3"))]
            )
            .service,
            Service::S3
        );
        assert_eq!(
            call("GET", "/_ministack/health", &[]).service,
            Service::Other
        );
    }

    #[test]
    fn the_body_names_the_stream_or_the_table() {
        for (body, key) in [
            (json!({"StreamName": "a"}), "a"),
            (
                json!({"StreamARN": "arn:aws:kinesis:eu-west-1:000000000000:stream/b"}),
                "b",
            ),
            (json!({"DeliveryStreamName": "c"}), "c"),
            (json!({"RequestItems": {"d": []}}), "d"),
            (json!(1), ""),
        ] {
            let mut call = call(
                "POST",
                "/",
                &[("x-amz-target", "Kinesis_20131202.PutRecords")],
            );
            call.read(&body);
            assert_eq!(call.key, key);
        }
    }
}
