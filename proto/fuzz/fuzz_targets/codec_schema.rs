//! Any bytes are an error or a schema that is written back to a schema equal to it.
#![no_main]

use headwater_proto::codec::Limits;
use headwater_proto::schema::Schema;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(schema) = Schema::decode(bytes, &Limits::DEFAULT) {
        let mut written = Vec::new();
        schema.encode(&mut written).expect("a schema that was read can be written");
        let again = Schema::decode(&written, &Limits::DEFAULT).expect("and read again");
        assert_eq!(schema, again);
    }
});
