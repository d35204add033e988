#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "platform/result.h"

namespace tensorforge::names {

inline constexpr std::size_t kMaxIdBytes = 255;  ///< ids, keys, and name, framework and checksum of a model
inline constexpr std::size_t kMaxTextBytes = std::size_t{4} * 1024;  ///< paths and reasons
inline constexpr std::size_t kMaxEntries = 256;  ///< tags of a version, metrics of a checkpoint, errors of a validation
inline constexpr std::size_t kMaxEntriesBytes = std::size_t{16} * 1024;  ///< keys and text of those, together
inline constexpr std::size_t kMaxRank = 32;                              ///< dimensions of a shape

/// An id (model, device, tensor, run, actor): 1 to 255 bytes of valid UTF-8, no control character (U+0000-1F,
/// U+007F-9F), no `@`, no space at either end. `what` names it in the message ("model id").
absl::Status check_id(std::string_view what, std::string_view value);
/// A tag or metric key: as an id, but `@` is fine.
absl::Status check_key(std::string_view what, std::string_view value);
/// Free text: valid UTF-8, at most `max_bytes`; empty is fine.
absl::Status check_text(std::string_view what, std::string_view value, std::size_t max_bytes);

/// Whether `value` is valid UTF-8.
bool is_utf8(std::string_view value);

/// `value` between double quotes, for a message: control characters, quotes, backslashes and bytes that are not UTF-8
/// are escaped, and what is over 255 bytes is cut with "…".
std::string quoted(std::string_view value);

}  // namespace tensorforge::names
