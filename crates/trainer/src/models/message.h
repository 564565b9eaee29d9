// How C++ tells Rust of an error; message.rs reads it.
#pragma once

#include <cstddef>
#include <cstring>
#include <exception>

namespace rehead {

// As much of the error's text as `bytes` have room for, and an end.
inline void write_message(const std::exception& error, char* message, std::size_t bytes) {
    std::strncpy(message, error.what(), bytes - 1);
    message[bytes - 1] = '\0';
}

}  // namespace rehead
