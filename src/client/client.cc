#include "client/client.h"

#include <array>
#include <cassert>
#include <cctype>
#include <future>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <asio.hpp>
#include <fmt/format.h>
#include <openssl/rand.h>

#include "platform/endpoint.h"

namespace tensorforge::client {
namespace {

using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kReadBytes = std::size_t{64} * 1024;
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

std::uint64_t now_ms() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count());
}

Core::Options core_options(const ClientOptions& options) {
  Core::Options core;
  core.actor = options.actor;
  core.program = options.program;
  core.connect_timeout_ms = static_cast<std::uint64_t>(options.connect_timeout.count());
  core.request_timeout_ms = static_cast<std::uint64_t>(options.request_timeout.count());
  core.reconnect_timeout_ms = static_cast<std::uint64_t>(options.reconnect_timeout.count());
  core.max_in_flight = options.max_in_flight;
  return core;
}

/// "Connection refused" of the system, as it reads inside a sentence.
std::string reason(const std::error_code& error) {
  std::string text = error.message();
  if (text.size() > 1 && std::islower(static_cast<unsigned char>(text[1])) != 0) {
    text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  }
  return text;
}

}  // namespace

// Everything but the constructor, run_thread(), first_answer() and submit() runs on the thread of `io_`.
class Client::Impl : public std::enable_shared_from_this<Client::Impl> {
 public:
  Impl(std::unique_ptr<asio::io_context> own, asio::io_context& io, ClientOptions options, Endpoint endpoint,
       SessionId session)
      : own_(std::move(own)),
        io_(io),
        options_(std::move(options)),
        endpoint_(std::move(endpoint)),
        random_(session[0] | std::uint64_t{session[1]} << 8U | std::uint64_t{session[2]} << 16U),
        core_(core_options(options_), session, [this] { return random_(); }),
        socket_(io),
        resolver_(io),
        timer_(io) {}

  void begin() {
    asio::post(io_, [self = shared_from_this()] {
      self->core_.connect();
      self->turn();
    });
  }

  void run_thread() {
    work_.emplace(own_->get_executor());
    thread_ = std::thread([this] { own_->run(); });
  }

  /// The outcome of the first attempt to connect. To be asked for before begin().
  std::future<absl::Status> first_attempt() { return first_attempt_.emplace().get_future(); }

  template <class... Args>
  void submit(Args&&... args) {
    if (io_.get_executor().running_in_this_thread()) {
      core_.submit(std::forward<Args>(args)..., now_ms());
      return turn_soon();
    }
    asio::post(io_, [self = shared_from_this(), ... args = std::forward<Args>(args)]() mutable {
      self->core_.submit(std::move(args)..., now_ms());
      self->turn_soon();
    });
  }

  template <class... Args>
  Answer call(Args... args) {
    assert(!io_.get_executor().running_in_this_thread() && "call() would wait for its own thread");
    std::promise<Answer> promise;
    std::future<Answer> answer = promise.get_future();
    submit(std::move(args)..., Callback([&promise](Answer a) { promise.set_value(std::move(a)); }));
    return answer.get();
  }

  void close() {
    const auto finish = [self = shared_from_this()] {
      self->core_.close();
      self->turn();
    };
    // A context that nobody runs any more has no other thread to run this on.
    if (io_.stopped() || io_.get_executor().running_in_this_thread()) {
      finish();
    } else {
      asio::post(io_, finish);
    }
    if (!thread_.joinable()) return;
    work_.reset();
    thread_.join();
  }

  Welcome welcome() const {
    const std::lock_guard lock(welcome_mutex_);
    return welcome_;
  }

 private:
  // Hands out answers until there are none (a callback may submit), then does what the core wants of the socket.
  void turn() {
    if (turning_) return;
    turning_ = true;
    publish();
    for (auto completions = core_.take_completions(); !completions.empty(); completions = core_.take_completions()) {
      for (Core::Completion& completion : completions) completion.callback(std::move(completion.answer));
    }
    act();
    write();
    set_timer();
    turning_ = false;
  }

  // Lets all submissions that wait in the context's queue go before, so that they share one write.
  void turn_soon() {
    if (turning_ || turn_posted_) return;
    turn_posted_ = true;
    asio::post(io_, [self = shared_from_this()] {
      self->turn_posted_ = false;
      self->turn();
    });
  }

  void act() {
    for (;;) {
      switch (core_.take_action(now_ms())) {
        case Core::Action::None:
          return;
        case Core::Action::Disconnect:
          disconnect();
          break;
        case Core::Action::Connect:
          begin_connect();
          break;
      }
    }
  }

  void disconnect() {
    ++connection_;
    std::error_code ignored;
    resolver_.cancel();
    socket_.close(ignored);
    writing_ = false;
  }

  void lost(std::uint64_t connection, const std::string& what) {
    if (connection != connection_) return;
    disconnect();
    core_.on_disconnected(absl::UnavailableError(what), now_ms());
    turn();
  }

  void begin_connect() {
    const std::uint64_t connection = ++connection_;
    std::error_code not_an_address;
    const auto address = asio::ip::make_address(endpoint_.host, not_an_address);
    if (!not_an_address) return connect_to({tcp::endpoint(address, endpoint_.port)}, connection);
    resolver_.async_resolve(
        endpoint_.host, std::to_string(endpoint_.port),
        [self = shared_from_this(), connection](std::error_code error, const tcp::resolver::results_type& found) {
          if (connection != self->connection_) return;
          if (error) return self->cannot_connect(connection, error);
          self->connect_to({found.begin(), found.end()}, connection);
        });
  }

  void connect_to(const std::vector<tcp::endpoint>& endpoints, std::uint64_t connection) {
    asio::async_connect(socket_, endpoints,
                        [self = shared_from_this(), connection](std::error_code error, const tcp::endpoint&) {
                          if (connection != self->connection_) return;
                          if (error) return self->cannot_connect(connection, error);
                          std::error_code ignored;
                          self->socket_.set_option(tcp::no_delay(true), ignored);
                          self->core_.on_connected(now_ms());
                          self->read(connection);
                          self->turn();
                        });
  }

  void cannot_connect(std::uint64_t connection, const std::error_code& error) {
    lost(connection,
         fmt::format("cannot connect to {}: {}; is tensorforged running?", format_endpoint(endpoint_), reason(error)));
  }

  void read(std::uint64_t connection) {
    socket_.async_read_some(asio::buffer(received_),
                            [self = shared_from_this(), connection](std::error_code error, std::size_t size) {
                              if (connection != self->connection_) return;
                              if (error) return self->connection_lost(connection, error);
                              self->turning_ = true;  // what callbacks submit goes with the turn that follows
                              self->core_.on_bytes(std::as_bytes(std::span(self->received_)).first(size), now_ms());
                              self->turning_ = false;
                              self->turn();
                              if (connection == self->connection_) self->read(connection);
                            });
  }

  void write() {
    if (writing_ || !socket_.is_open()) return;
    sending_ = core_.take_output(now_ms());
    if (sending_.empty()) return;
    writing_ = true;
    asio::async_write(socket_, asio::buffer(sending_),
                      [self = shared_from_this(), connection = connection_](std::error_code error, std::size_t) {
                        if (connection != self->connection_) return;
                        self->writing_ = false;
                        if (error) return self->connection_lost(connection, error);
                        self->turn();
                      });
  }

  void connection_lost(std::uint64_t connection, const std::error_code& error) {
    const bool closed = error == asio::error::eof;
    lost(connection, fmt::format("the connection to {} was {}", format_endpoint(endpoint_),
                                 closed ? "closed by the service" : "lost: " + reason(error)));
  }

  // A timer that fires too early costs one look, so it is only ever moved forward in time when it has fired.
  void set_timer() {
    const std::uint64_t next = core_.next_tick();
    if (next == kNever) {
      // Else it would keep the context from running out of work.
      if (timer_at_ != kNever) timer_.cancel();
      timer_at_ = kNever;
      return;
    }
    if (next >= timer_at_) return;
    timer_at_ = next;
    timer_.expires_at(Clock::time_point(std::chrono::milliseconds(next)));
    timer_.async_wait([self = shared_from_this()](std::error_code error) {
      if (error) return;
      self->timer_at_ = kNever;
      self->core_.on_tick(now_ms());
      self->turn();
    });
  }

  void publish() {
    if (core_.welcome() != seen_welcome_) {
      seen_welcome_ = core_.welcome();
      const std::lock_guard lock(welcome_mutex_);
      welcome_ = *seen_welcome_;
    }
    if (!first_attempt_ || (!core_.ready() && core_.last_error().ok())) return;
    first_attempt_->set_value(core_.ready() ? absl::OkStatus() : core_.last_error());
    first_attempt_.reset();
  }

  const std::unique_ptr<asio::io_context> own_;
  asio::io_context& io_;
  const ClientOptions options_;
  const Endpoint endpoint_;
  std::mt19937_64 random_;
  Core core_;

  tcp::socket socket_;
  tcp::resolver resolver_;
  asio::steady_timer timer_;
  std::uint64_t connection_{};  // counts attempts and ends, so that a late handler knows that it is one
  std::uint64_t timer_at_{kNever};
  std::array<char, kReadBytes> received_{};
  std::string sending_;
  bool writing_{}, turning_{}, turn_posted_{};

  std::optional<std::promise<absl::Status>> first_attempt_;
  std::optional<Welcome> seen_welcome_;
  mutable std::mutex welcome_mutex_;
  Welcome welcome_;

  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  std::thread thread_;
};

Result<SessionId> new_session() {
  SessionId session{};
  if (RAND_bytes(session.data(), static_cast<int>(session.size())) != 1) {
    return absl::InternalError("the system gives no random bytes");
  }
  return session;
}

Result<std::unique_ptr<Client>> Client::connect(ClientOptions options) {
  Result<Endpoint> endpoint = parse_endpoint(options.server);
  if (!endpoint.ok()) return endpoint.status();
  const Result<SessionId> session = new_session();
  if (!session.ok()) return session.status();
  auto own = std::make_unique<asio::io_context>(1);
  asio::io_context& io = *own;
  auto impl = std::make_shared<Impl>(std::move(own), io, std::move(options), *std::move(endpoint), *session);
  std::future<absl::Status> first_attempt = impl->first_attempt();
  std::unique_ptr<Client> client(new Client(impl));
  impl->begin();
  impl->run_thread();
  if (absl::Status status = first_attempt.get(); !status.ok()) return status;
  return client;
}

Result<std::unique_ptr<Client>> Client::start(asio::io_context& io, ClientOptions options) {
  Result<Endpoint> endpoint = parse_endpoint(options.server);
  if (!endpoint.ok()) return endpoint.status();
  const Result<SessionId> session = new_session();
  if (!session.ok()) return session.status();
  std::unique_ptr<Client> client(
      new Client(std::make_shared<Impl>(nullptr, io, std::move(options), *std::move(endpoint), *session)));
  client->impl_->begin();
  return client;
}

Client::Client(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() { impl_->close(); }

void Client::submit(Command command, CommandOptions options, Callback callback) {
  impl_->submit(std::move(command), std::move(options), std::move(callback));
}
void Client::submit(Query query, Callback callback) { impl_->submit(std::move(query), std::move(callback)); }
Answer Client::call(Command command, CommandOptions options) {
  return impl_->call(std::move(command), std::move(options));
}
Answer Client::call(Query query) { return impl_->call(std::move(query)); }
Welcome Client::welcome() const { return impl_->welcome(); }

}  // namespace tensorforge::client
