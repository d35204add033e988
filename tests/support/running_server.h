#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "client/client.h"
#include "server/server.h"
#include "service/recover.h"
#include "tests/support/prompt_journal.h"

namespace tensorforge::test {

inline constexpr registry::ModelVersion kV1{1, 0, 0};

inline Command registration(const std::string& model_id, std::size_t tag_bytes = 0) {
  registry::ModelMetadata model;
  model.model_id = model_id;
  model.version = kV1;
  if (tag_bytes > 0) model.tags["payload"] = std::string(tag_bytes, 'x');
  return SingleCommand(registry::Command(registry::RegisterModel{model}));
}

/// A whole service in this process: sockets and threads are real, the disk is not.
class RunningServer {
 public:
  explicit RunningServer(const server::Server::Options& changed = {}, bool journal_tells_late = false)
      : journal(journal_tells_late) {
    server::Server::Options options = changed;
    options.identity.log_id = journal.log_id();
    options.identity.version = "test";
    options.handle_signals = false;
    options.to_start = storage::OpenedDirectory::Incarnation{IncarnationCause::FirstStart, 77};
    std::promise<void> ready;
    options.on_ready = [&] { ready.set_value(); };
    Result<server::Listener> listener = server::Listener::bind({"127.0.0.1", 0});
    EXPECT_TRUE(listener.ok()) << listener.status();
    port = listener->endpoint().port;
    server_ = std::make_unique<server::Server>(std::move(options), *std::move(listener), journal,
                                               service::recover(journal).value());
    thread_ = std::thread([this] { exit_code_ = server_->run(); });
    ready.get_future().wait();
  }
  ~RunningServer() {
    if (thread_.joinable()) stop();
  }
  /// Stops it if it runs, and gives its exit code.
  int stop() {
    server_->stop();
    return wait();
  }
  int wait() {
    thread_.join();
    EXPECT_TRUE(journal.close().ok() || exit_code_ != 0);
    return exit_code_;
  }

  client::ClientOptions client_options() const {
    client::ClientOptions options;
    options.server = fmt::format("127.0.0.1:{}", port);
    options.actor = "ann";
    return options;
  }
  std::unique_ptr<client::Client> connect() const {
    Result<std::unique_ptr<client::Client>> client = client::Client::connect(client_options());
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  PromptJournal journal;
  std::uint16_t port{};

 private:
  std::unique_ptr<server::Server> server_;
  std::thread thread_;
  int exit_code_{-1};
};

inline result::Status status_of(client::Client& client) {
  const client::Answer answer = client.call(query::GetStatus{});
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  return answer.status.ok() ? std::get<result::Status>(answer.reply.result) : result::Status{};
}

}  // namespace tensorforge::test
