#include "connection.h"

#include <fmt/format.h>

namespace tensorforge::cli {

Failure refusal(absl::Status status) {
  const bool no_answer = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
  return {no_answer ? Exit::NoConnection : Exit::Refused, std::move(status)};
}

Failure wrong_usage(const std::string& message) { return {Exit::WrongUsage, absl::InvalidArgumentError(message)}; }

std::string describe(const absl::Status& status) {
  return fmt::format("{}: {}", absl::StatusCodeToString(status.code()), std::string(status.message()));
}

Connection::Connection(const std::string& server, const std::string& actor, std::chrono::milliseconds request_timeout) {
  client::ClientOptions options;
  options.server = server;
  options.actor = actor;
  options.program = "tensorforge/" TENSORFORGE_VERSION;
  options.request_timeout = request_timeout;
  Result<std::unique_ptr<client::Client>> client = client::Client::connect(std::move(options));
  if (!client.ok()) {
    throw absl::IsInvalidArgument(client.status()) ? Failure{Exit::WrongUsage, client.status()}
                                                   : refusal(client.status());
  }
  client_ = *std::move(client);
}

Reply Connection::ask(Query query) {
  client::Answer answer = client_->call(std::move(query));
  if (!answer.status.ok()) throw refusal(std::move(answer.status));
  return std::move(answer.reply);
}

Change Connection::change(Command command, const ChangeOptions& options) {
  client::Answer answer = client_->call(std::move(command), {options.if_sequence, options.reason});
  if (!answer.status.ok()) throw refusal(std::move(answer.status));
  return {std::move(answer.reply), std::move(answer.request_id)};
}

Failure Connection::unexpected_result() {
  return refusal(absl::InternalError("the service answered with a result of another kind; is it another version?"));
}

Json to_json(const Change& change) {
  Json json = to_json(change.reply.result);
  if (!json.is_object()) json = Json{{"results", json}};
  json["sequence"] = change.reply.sequence;
  json["request_id"] = change.request_id;
  return json;
}

}  // namespace tensorforge::cli
