//! The body of `POST /v1/fine_tuning/jobs`: a request that is the same when it is written and read
//! again, or problems with their paths.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rehead_domain::request;
use rehead_fuzz::{check_problems, within};
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let memory = (1 << 20) + 1_000 * bytes.len();
    match within(memory, || request::parse(&body)) {
        // The service lists the first hundred; here each costs bytes of the body.
        Err(problems) => check_problems(&problems, 1_000 + bytes.len()),
        Ok(request) => {
            // The options lie where `method` names them.
            let mut written = serde_json::to_value(&request).expect("a request is JSON");
            let fields = written.as_object_mut().expect("a request is an object");
            let transfer = fields.remove("transfer");
            let method = json!({"type": "transfer", "transfer": transfer});
            fields.insert("method".to_owned(), method);
            let again = request::parse(&written).expect("a request can be read again");
            assert_eq!(again, request);
        }
    }
});
