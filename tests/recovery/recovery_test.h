#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "client/client.h"
#include "tests/support/daemon.h"

namespace tensorforge::test {

inline constexpr registry::ModelVersion kV1{1, 0, 0};
inline constexpr std::size_t kPoolBytes = std::size_t{1} << 40U;

/// That no compression makes short; `state` goes on.
inline std::string random_text(std::size_t size, std::uint64_t& state) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>('!' + ((state = state * 6364136223846793005U + 1) >> 57U) % 90);
  return text;
}

inline Command registration(const std::string& model_id) {
  registry::ModelMetadata model;
  model.model_id = model_id;
  model.version = kV1;
  model.framework = "onnx";
  return SingleCommand(registry::Command(registry::RegisterModel{model}));
}
inline Command pool_creation() {
  return SingleCommand(gpu_memory::Command(gpu_memory::CreatePool{{"gpu0", kPoolBytes, 0, {}}}));
}
// Nothing but its number tells one allocation from another: carried out twice, it leaves two blocks.
inline Command allocation() {
  return SingleCommand(gpu_memory::Command(gpu_memory::Allocate{"gpu0", {"tensor", 4096, 1, false, 0}}));
}

inline result::Status status_of(client::Client& client) {
  const client::Answer answer = client.call(query::GetStatus{});
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  return answer.status.ok() ? std::get<result::Status>(answer.reply.result) : result::Status{};
}

/// Keeps commands in flight through one client, which retries through every restart, and notes each answer.
class Load {
 public:
  Load(client::Client& client, std::string name, int in_flight) : client_(client), name_(std::move(name)) {
    for (int i = 0; i < in_flight; ++i) submit_next();
  }
  ~Load() { stop(); }
  void wait_for_answers(int count) {
    std::unique_lock lock(mutex_);
    const int target = answered_ + count;
    changed_.wait(lock, [&] { return answered_ >= target; });
  }
  /// Submits no more, and waits for the answers to everything.
  void stop() {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.wait(lock, [&] { return answered_ == submitted_; });
  }
  const std::vector<std::string>& models() const { return models_; }
  const std::set<std::string>& blocks() const { return blocks_; }
  const std::set<Sequence>& sequences() const { return sequences_; }

 private:
  void submit_next() {
    int number = 0;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      number = submitted_++;
    }
    const std::string model = number % 2 == 0 ? fmt::format("{}-{}", name_, number) : "";
    client_.submit(model.empty() ? allocation() : registration(model), {}, [this, model](client::Answer answer) {
      on_answer(model, answer);
      submit_next();
    });
  }
  void on_answer(const std::string& model, const client::Answer& answer) {
    const std::lock_guard lock(mutex_);
    ++answered_;
    changed_.notify_all();
    // A command that was carried out twice would be refused the second time (ALREADY_EXISTS).
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    if (!answer.status.ok()) return;
    EXPECT_TRUE(sequences_.insert(answer.reply.sequence).second) << "one sequence for two commands";
    if (!model.empty()) {
      models_.push_back(model);
    } else {
      EXPECT_TRUE(blocks_.insert(std::get<result::Allocated>(answer.reply.result).block_id).second);
    }
  }

  client::Client& client_;
  const std::string name_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int submitted_{}, answered_{};
  bool stopping_{};
  std::vector<std::string> models_;
  std::set<std::string> blocks_;
  std::set<Sequence> sequences_;
};

/// The real service, started again and again over one data directory.
class RecoveryTest : public testing::Test {
 protected:
  std::vector<std::string> arguments(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all{"--data-dir", data_.string(), "--listen", fmt::format("127.0.0.1:{}", port_)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  /// Always at the same port, so that clients find it again.
  std::unique_ptr<Daemon> start(const std::vector<std::string>& more = {},
                                const std::vector<std::string>& environment = {}) {
    auto daemon = std::make_unique<Daemon>(arguments(more), environment);
    EXPECT_TRUE(daemon->ready()) << daemon->errors();
    if (daemon->ready()) port_ = daemon->ready()->port;
    return daemon;
  }
  std::unique_ptr<client::Client> connect() const {
    client::ClientOptions options;
    options.server = fmt::format("127.0.0.1:{}", port_);
    options.actor = "ann";
    options.request_timeout = std::chrono::minutes(2);
    Result<std::unique_ptr<client::Client>> client = client::Client::connect(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  void expect_all_there(client::Client& client, const std::vector<const Load*>& loads) {
    std::size_t models = 0, blocks = 0;
    for (const Load* load : loads) {
      for (const std::string& model : load->models()) {
        EXPECT_TRUE(client.call(query::GetModel{model, kV1}).status.ok()) << model;
      }
      for (const std::string& block : load->blocks()) {
        EXPECT_TRUE(client.call(query::GetBlock{"gpu0", block}).status.ok()) << block;
      }
      models += load->models().size();
      blocks += load->blocks().size();
    }
    const result::Status status = status_of(client);
    EXPECT_EQ(status.model_versions, models) << "a command was carried out that nobody was told of, or twice";
    EXPECT_EQ(status.live_blocks, blocks);
  }

  TemporaryDirectory directory_;
  std::filesystem::path data_ = directory_.path() / "data";
  std::uint16_t port_{};
};

}  // namespace tensorforge::test
