#include "crashtest/load.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <list>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <asio.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "client/client.h"
#include "codec/record.h"
#include "crashtest/random.h"
#include "crashtest/workload.h"

namespace tensorforge::crashtest {
namespace {

constexpr std::chrono::seconds kRequestTimeout{60};

}  // namespace

// Everything but the counters and the file's descriptor belongs to the thread that runs io_.
class Load::Impl {
 public:
  Impl(const Options& options, int file) : options_(options), file_(file) {}
  ~Impl() {
    io_.stop();  // behind a failure nobody may be there to answer
    if (thread_.joinable()) thread_.join();
    stopping_ = true;
    sources_.clear();
    ::close(file_);
  }

  absl::Status start() {
    for (std::size_t i = 0; i < options_.clients; ++i) {
      client::ClientOptions options;
      options.server = options_.server;
      options.actor = fmt::format("client{}", i);
      options.request_timeout = options.reconnect_timeout = kRequestTimeout;
      Result<std::unique_ptr<client::Client>> client = client::Client::start(io_, options);
      if (!client.ok()) return client.status();
      Source& source = sources_.emplace_back();
      source.client = *std::move(client);
      source.actor = options.actor;
      source.random.seed(options_.seed * 1'000 + i);
    }
    asio::post(io_, [this] {
      for (Source& source : sources_) {
        for (std::size_t i = 0; i < options_.depth; ++i) submit(source);
      }
    });
    thread_ = std::thread([this] { io_.run(); });
    return absl::OkStatus();
  }

  void allow(std::uint64_t requests) {
    asio::post(io_, [this, requests] {
      allowed_ += requests;
      for (Source& source : sources_) {
        for (std::size_t waiting = std::exchange(source.waiting, 0); waiting > 0; --waiting) submit(source);
      }
    });
  }

  std::uint64_t answered() const { return answered_; }
  Sequence highest() const { return highest_; }
  absl::Status sync() {
    if (::fdatasync(file_) != 0 || write_failed_) return absl::UnavailableError("the file of calls cannot be written");
    return absl::OkStatus();
  }

  const CallJournal& finish() {
    if (!thread_.joinable()) return calls_;
    asio::post(io_, [this] {
      stopping_ = true;
      end_if_done();
    });
    thread_.join();
    sources_.clear();
    return calls_;
  }

 private:
  struct Source {
    std::unique_ptr<client::Client> client;
    std::string actor;
    std::mt19937_64 random;
    Workload workload;
    std::size_t waiting{};  ///< requests that it may not begin yet
  };

  void submit(Source& source) {
    if (stopping_) return end_if_done();
    if (options_.begins_only_allowed) {
      if (allowed_ == 0) {
        ++source.waiting;
        return;
      }
      --allowed_;
    }
    Call call;
    call.actor = source.actor;
    if (one_in(source.random, 4)) {
      const Query query = source.workload.query(source.random);
      call.body = query;
      return source.client->submit(query, begin(source, std::move(call)));
    }
    const Command command = source.workload.command(source.random);
    call.body = command;
    if (one_in(source.random, 8)) call.if_sequence = below(source.random, highest_ + 1);
    if (one_in(source.random, 6)) call.reason = "because";
    client::CommandOptions options{call.if_sequence, call.reason};
    source.client->submit(command, std::move(options), begin(source, std::move(call)));
  }

  client::Callback begin(Source& source, Call call) {
    ++open_;
    const std::size_t handle = calls_.begin(std::move(call));
    write(fmt::format("asked {} {}\n", handle, source.actor));
    return [this, &source, handle](client::Answer answer) { on_answer(source, handle, std::move(answer)); };
  }

  void on_answer(Source& source, std::size_t handle, client::Answer answer) {
    write(fmt::format("told {} {} {} {}\n", handle, answer.request_id.empty() ? "-" : answer.request_id,
                      static_cast<int>(answer.status.code()), answer.reply.sequence));
    if (!answer.request_id.empty()) {
      const std::size_t dash = answer.request_id.find('-');
      calls_.sent_as(handle, parse_session(answer.request_id.substr(0, dash)).value(),
                     std::stoull(answer.request_id.substr(dash + 1)));
    }
    // The client's own answer has no id, and says that the outcome is unknown.
    if (answer.reply.correlation_id != 0 && !absl::IsUnavailable(answer.status)) {
      source.workload.learn(answer.reply);
      highest_ = std::max<Sequence>(highest_, answer.reply.sequence);
      calls_.answer(handle, std::move(answer.reply));
    }
    --open_;
    ++answered_;
    submit(source);
  }

  void end_if_done() {
    if (open_ == 0) io_.stop();
  }

  void write(const std::string& line) {
    if (::write(file_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) write_failed_ = true;
  }

  const Options options_;
  const int file_;
  asio::io_context io_{1};
  /// Clients that have nothing to ask and no service wait for nothing, and may be allowed more later.
  const asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::list<Source> sources_;  // these stay where they are
  CallJournal calls_;
  std::uint64_t allowed_{};
  std::size_t open_{};
  bool stopping_{};
  std::atomic<std::uint64_t> answered_{};
  std::atomic<Sequence> highest_{};
  std::atomic<bool> write_failed_{};
  std::thread thread_;
};

Load::Load(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Load::~Load() = default;

Result<std::unique_ptr<Load>> Load::start(const Options& options) {
  const int file = ::open(options.calls_path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return absl::UnavailableError(fmt::format("cannot make {}", options.calls_path));
  auto impl = std::make_unique<Impl>(options, file);
  if (absl::Status started = impl->start(); !started.ok()) return started;
  return std::unique_ptr<Load>(new Load(std::move(impl)));
}

void Load::allow(std::uint64_t requests) { impl_->allow(requests); }
std::uint64_t Load::answered() const { return impl_->answered(); }
Sequence Load::highest() const { return impl_->highest(); }
absl::Status Load::sync() { return impl_->sync(); }
const CallJournal& Load::finish() { return impl_->finish(); }

}  // namespace tensorforge::crashtest
