//! Reads the text of libtorch's C++ exceptions, which have no codes.

/// True when this text says that memory ran out.
pub fn is_out_of_memory(text: &str) -> bool {
    let lower = text.to_lowercase();
    let contains = |words: &str| lower.contains(words);
    // oneDNN does not say why a primitive failed; once the operation has its descriptor, memory is
    // the only resource that can still be missing.
    let primitive = (contains("could not create a primitive") && !contains("primitive descriptor"))
        || contains("could not execute a primitive");
    // An error of libtorch computes its text when it is asked for it, which only allocates
    // (c10/util/Exception.cpp): what fails there is memory.
    let words = [
        "out of memory",
        "can't allocate memory",
        "bad_alloc",
        "error computing error::what()",
    ];
    primitive || words.into_iter().any(contains)
}
