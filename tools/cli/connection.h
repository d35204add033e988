#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "client/client.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "json.h"

namespace tensorforge::cli {

/// What the program's exit code says.
enum class Exit { Done = 0, Refused = 1, WrongUsage = 2, NoConnection = 3, VerificationFailed = 4, LossFound = 5 };

/// Ends the program: a verb has nothing left to do after its first error but to say it, so it throws this to main().
struct Failure {
  Exit exit{};
  absl::Status status;
};
/// The failure that a status of the service means: Refused, or NoConnection for kUnavailable.
Failure refusal(absl::Status status);
Failure wrong_usage(const std::string& message);
/// "NOT_FOUND: model ..."
std::string describe(const absl::Status& status);

/// What stands with every changing verb.
struct ChangeOptions {
  std::string reason;
  std::optional<Sequence> if_sequence;
};

/// The answer to a change that was carried out.
struct Change {
  Reply reply;
  std::string request_id;
};

/// One conversation with the service, one request at a time; what is not answered with a result throws Failure.
///
/// Threads: one; the client library has its own beside it.
class Connection {
 public:
  Connection(const std::string& server, const std::string& actor, std::chrono::milliseconds request_timeout);

  Reply ask(Query query);
  Change change(Command command, const ChangeOptions& options);

  /// The answer to `query`, which is an `R`.
  template <class R>
  R ask_for(Query query) {
    return result_as<R>(ask(std::move(query)));
  }
  template <class R>
  static R result_as(Reply reply) {
    if (R* result = std::get_if<R>(&reply.result)) return std::move(*result);
    throw unexpected_result();
  }

  client::Client& client() { return *client_; }

 private:
  static Failure unexpected_result();

  std::unique_ptr<client::Client> client_;
};

/// The change as a document: what it did, then its sequence and request id.
Json to_json(const Change&);

/// Asks for page after page of a list and hands each reply to `take`, which answers whether to go on.
///
/// `source` is a Connection or a LogSource; `limit` rows are enough.
template <class Source, class Q, class Take>
void each_page(Source& source, Q query, const std::optional<std::uint64_t>& limit, Take take) {
  if (limit) query.page.size = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(*limit, 1, kDefaultPageSize));
  for (;;) {
    Reply reply = source.ask(query);
    query.page.token = reply.next_page_token;
    if (!take(std::move(reply)) || !query.page.token) return;
  }
}

/// Sends a command again and again until its result, an `R`, says that there is no more; `order` makes the next one and
/// `take` gets each result. The answer to the last. A condition of `options` then holds against our own changes too.
template <class R, class Order, class Take>
Change repeat(Connection& service, ChangeOptions options, Order order, Take take) {
  for (;;) {
    Change change = service.change(order(), options);
    const R part = Connection::result_as<R>(change.reply);
    take(part);
    if (!part.more) return change;
    if (options.if_sequence) options.if_sequence = change.reply.sequence;
  }
}

}  // namespace tensorforge::cli
