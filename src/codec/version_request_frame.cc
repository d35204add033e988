#include "codec/version_request_frame.h"

#include <algorithm>
#include <cassert>
#include <variant>

#include "command_generated.h"

namespace tensorforge::codec {
namespace {

// What is changed in place has to be there: a number that is the default, 0, is not written.
constexpr std::uint64_t kThere = 1;

wire::Request& request_in(std::string& frame) {
  auto* root = flatbuffers::GetMutableRoot<wire::ClientFrame>(frame.data() + sizeof(flatbuffers::uoffset_t));
  return *static_cast<wire::Request*>(root->mutable_message());
}

/// What names the version in `request`.
std::pair<flatbuffers::String*, wire::Version*> version_in(wire::Request& request) {
  if (request.query_type() == wire::Query::GetModel) {
    auto* query = static_cast<wire::GetModel*>(request.mutable_query());
    return {query->mutable_model_id(), query->mutable_version()};
  }
  wire::Model* model = static_cast<wire::RegisterModel*>(request.mutable_command())->mutable_model();
  return {model->mutable_model_id(), model->mutable_version()};
}

}  // namespace

Result<VersionRequestFrame> VersionRequestFrame::make(registry::RegisterModel command) {
  return make(RequestBody(Command(registry::Command(std::move(command)))));
}

Result<VersionRequestFrame> VersionRequestFrame::make(query::GetModel query) {
  assert(query.version);
  return make(RequestBody(Query(std::move(query))));
}

Result<VersionRequestFrame> VersionRequestFrame::make(RequestBody body) {
  Request request;
  request.correlation_id = kThere;
  if (std::holds_alternative<Command>(body)) request.command_number = request.answered_below = kThere;
  request.body = std::move(body);
  Result<std::string> frame = encode_client_frame(request);
  if (!frame.ok()) return frame.status();
  return VersionRequestFrame(*std::move(frame));
}

void VersionRequestFrame::set_version(std::string_view model_id, const registry::ModelVersion& version) {
  const auto [id, numbers] = version_in(request_in(frame_));
  assert(model_id.size() == id->size());
  std::copy_n(model_id.data(), id->size(), id->Data());
  numbers->mutate_major(version.major);
  numbers->mutate_minor(version.minor);
  numbers->mutate_patch(version.patch);
}

void VersionRequestFrame::set_numbers(std::uint64_t correlation_id, std::uint64_t command_number,
                                      std::uint64_t answered_below) {
  wire::Request& request = request_in(frame_);
  assert(correlation_id != 0);
  assert(request.command_type() == wire::Command::NONE || (command_number != 0 && answered_below != 0));
  request.mutate_correlation_id(correlation_id);
  request.mutate_command_number(command_number);
  request.mutate_answered_below(answered_below);
}

}  // namespace tensorforge::codec
