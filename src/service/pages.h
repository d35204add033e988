#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/request.h"
#include "platform/result.h"

namespace tensorforge::service {

/// Elements on the page that is asked for. kInvalidArgument: over kMaxPageSize.
Result<std::size_t> page_size(const Page&);
/// The page's token (there is one) as a number. kInvalidArgument: it is none.
Result<std::uint64_t> number_token(const Page&);
/// kInvalidArgument: no token that a reply of ours had.
absl::Status bad_token(const Page&);

}  // namespace tensorforge::service
