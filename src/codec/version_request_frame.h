#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "codec/request.h"
#include "platform/result.h"

namespace tensorforge::codec {

/// The frame of a request for one model version, to be sent again and again for others: encoded once, and from then on
/// changed where it lies. It is always, byte for byte, what encode_client_frame() makes of the same request.
///
/// Threads: none.
class VersionRequestFrame {
 public:
  /// As append_client_frame().
  static Result<VersionRequestFrame> make(registry::RegisterModel command);
  /// `version` is there.
  static Result<VersionRequestFrame> make(query::GetModel query);

  /// `model_id` is as long as it was in make().
  void set_version(std::string_view model_id, const registry::ModelVersion& version);
  /// None is 0; a query has no command numbers, and those given with one are passed over.
  void set_numbers(std::uint64_t correlation_id, std::uint64_t command_number, std::uint64_t answered_below);

  std::string_view bytes() const { return frame_; }

 private:
  explicit VersionRequestFrame(std::string frame) : frame_(std::move(frame)) {}
  static Result<VersionRequestFrame> make(RequestBody body);

  std::string frame_;
};

}  // namespace tensorforge::codec
