// kill_loop [SECONDS [SEED]]: kills the service under load again and again, and checks that nothing which it
// acknowledged is missing or there twice. Exit code 0: all is there; 1: something is not.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "client/client.h"
#include "service/recover.h"
#include "tests/support/daemon.h"

namespace tensorforge {
namespace {

using client::Answer;
using client::Client;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kClients = 4, kDepth = 16;
constexpr const char* kDevice = "kill/gpu0";
constexpr std::uint64_t kPoolBytes = std::uint64_t{1} << 50U;

/// A change that the service said is done: what the log must hold.
struct Acknowledged {
  std::string request_id, entity;  ///< the model, or the block
};

/// What the clients were told, by sequence. Thread-safe.
class Oracle {
 public:
  void acknowledge(Sequence sequence, Acknowledged change) {
    const std::lock_guard lock(mutex_);
    highest_ = std::max(highest_, sequence);
    const bool added = changes_.emplace(sequence, std::move(change)).second;
    if (!added) problems_.push_back(fmt::format("sequence {} was given to two changes", sequence));
  }
  void problem(std::string text) {
    const std::lock_guard lock(mutex_);
    problems_.push_back(std::move(text));
  }
  Sequence highest() const {
    const std::lock_guard lock(mutex_);
    return highest_;
  }
  // After the load.
  const std::map<Sequence, Acknowledged>& changes() const { return changes_; }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  mutable std::mutex mutex_;
  Sequence highest_{};
  std::map<Sequence, Acknowledged> changes_;
  std::vector<std::string> problems_;
};

std::unique_ptr<Client> connect(const std::string& address) {
  Result<std::unique_ptr<Client>> client = Client::connect({.server = address, .actor = "kill_loop"});
  if (!client.ok()) throw std::runtime_error(client.status().ToString());
  return *std::move(client);
}

/// One client that keeps requests in flight, through every death of the service.
class Load {
 public:
  Load(Oracle& oracle, const std::string& address, std::size_t number)
      : oracle_(oracle), number_(number), client_(connect(address)) {
    for (std::size_t i = 0; i < kDepth; ++i) next();
  }

  /// Waits until everything that was sent is answered.
  void finish() {
    stopping_ = true;
    while (in_flight_ > 0) in_flight_.wait(in_flight_.load());
  }

 private:
  void next() {
    ++in_flight_;
    const std::uint64_t number = sent_++;
    if (number % 2 == 0) return register_model(fmt::format("kill/{}/{}", number_, number));
    // Nothing but its command number tells one allocation from another.
    client_->submit(gpu_memory::Allocate{kDevice, {"tensor", 4096, 1, false, 0}}, {}, [this](const Answer& answer) {
      const auto* allocated = std::get_if<result::Allocated>(&answer.reply.result);
      on_answer(answer, allocated == nullptr ? "" : allocated->block_id);
    });
  }

  void register_model(const std::string& model_id) {
    registry::ModelMetadata model;
    model.model_id = model_id;
    model.version = {1, 0, 0};
    client_->submit(registry::RegisterModel{model}, {},
                    [this, model_id](const Answer& answer) { on_answer(answer, model_id); });
  }

  void on_answer(const Answer& answer, std::string entity) {
    if (answer.status.ok()) {
      oracle_.acknowledge(answer.reply.sequence, {answer.request_id, std::move(entity)});
    } else {
      oracle_.problem(fmt::format("{}: {}", answer.request_id, answer.status.ToString()));
    }
    if (!stopping_) next();
    --in_flight_;
    in_flight_.notify_all();
  }

  Oracle& oracle_;
  std::size_t number_;
  std::atomic<std::uint64_t> sent_{};
  std::atomic<std::size_t> in_flight_{};
  std::atomic<bool> stopping_{};
  std::unique_ptr<Client> client_;
};

result::Status status_of(Client& client) {
  const Answer answer = client.call(query::GetStatus{});
  if (!answer.status.ok()) throw std::runtime_error("status: " + answer.status.ToString());
  return std::get<result::Status>(answer.reply.result);
}

std::string entity_of(const Event& event) {
  if (const auto* domain = std::get_if<registry::Event>(&event)) {
    if (const auto* registered = std::get_if<registry::ModelRegistered>(domain)) return registered->model.model_id;
  }
  if (const auto* domain = std::get_if<gpu_memory::Event>(&event)) {
    if (const auto* allocated = std::get_if<gpu_memory::BlockAllocated>(domain)) {
      return format_entity_id(gpu_memory::kBlockIdPrefix, allocated->block);
    }
  }
  return "";
}

struct Verdict {
  std::uint64_t records{}, lost{}, twice{}, digests{}, wrong_digests{};
};

/// Reads the whole log and holds it against what the clients were told, and its fold against the digests seen.
Verdict compare(Client& client, const Oracle& oracle, const std::map<Sequence, std::string>& digests) {
  Verdict verdict;
  const Sequence end = status_of(client).sequence;
  std::set<std::string> requests;
  std::set<Sequence> found;
  service::Replay replay;
  while (verdict.records < end) {
    const Answer answer = client.call(query::ReadLog{verdict.records + 1, kMaxPageSize});
    if (!answer.status.ok()) throw std::runtime_error("log: " + answer.status.ToString());
    for (const result::LogRecord& stored : std::get<result::LogRecords>(answer.reply.result).records) {
      const std::span<const std::byte> bytes = std::as_bytes(std::span(stored.record));
      const Result<Record> record = codec::decode_record(bytes);
      if (!record.ok()) throw std::runtime_error(record.status().ToString());
      if (const absl::Status added = replay.add(bytes); !added.ok()) throw std::runtime_error(added.ToString());
      ++verdict.records;
      std::string request_id;
      if (record->session) {
        request_id = fmt::format("{}-{}", format_session(*record->session), record->command_number);
        if (!requests.insert(request_id).second) ++verdict.twice;
      }
      const auto told = oracle.changes().find(record->sequence);
      if (told != oracle.changes().end() && told->second.request_id == request_id &&
          told->second.entity == entity_of(record->event)) {
        found.insert(record->sequence);
      }
      if (const auto seen = digests.find(record->sequence); seen != digests.end()) {
        ++verdict.digests;
        if (format_digest(replay.state().digest()) != seen->second) ++verdict.wrong_digests;
      }
    }
  }
  verdict.lost = oracle.changes().size() - found.size();
  return verdict;
}

int run(std::chrono::seconds duration, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const test::TemporaryDirectory directory;
  const std::string data = directory.path() / "data";
  const auto start = [&](const std::string& address) {
    auto daemon = std::make_unique<test::Daemon>(std::vector<std::string>{"--data-dir", data, "--listen", address});
    if (!daemon->ready()) throw std::runtime_error("the service did not start: " + daemon->errors());
    return daemon;
  };
  std::unique_ptr<test::Daemon> daemon = start("127.0.0.1:0");
  const std::string address = daemon->ready()->address;
  const std::unique_ptr<Client> watcher = connect(address);
  const Answer created = watcher->call(gpu_memory::CreatePool{{kDevice, kPoolBytes, 0, {}}});
  if (!created.status.ok()) throw std::runtime_error(created.status.ToString());

  Oracle oracle;
  std::map<Sequence, std::string> digests;
  std::uint64_t kills = 0;
  {
    std::vector<std::unique_ptr<Load>> loads;
    for (std::size_t i = 0; i < kClients; ++i) loads.push_back(std::make_unique<Load>(oracle, address, i));
    for (const Clock::time_point end = Clock::now() + duration; Clock::now() < end;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(150 + random() % 600));
      const result::Status before = status_of(*watcher);
      digests[before.sequence] = before.state_digest;
      const Sequence acknowledged = oracle.highest();
      daemon->kill();
      ++kills;
      daemon = start(address);
      const Sequence recovered = daemon->ready()->events;
      if (recovered < acknowledged) {
        oracle.problem(fmt::format("recovered {} events, {} were acknowledged", recovered, acknowledged));
      }
    }
    for (const std::unique_ptr<Load>& load : loads) load->finish();
  }
  const Verdict verdict = compare(*watcher, oracle, digests);
  const int exit_code = daemon->stop();

  fmt::print("seed                     {}\n", seed);
  fmt::print("kills (SIGKILL)          {}\n", kills);
  fmt::print("acknowledged changes     {}\n", oracle.changes().size());
  fmt::print("records in the log       {}\n", verdict.records);
  fmt::print("acknowledged and lost    {}\n", verdict.lost);
  fmt::print("carried out twice        {}\n", verdict.twice);
  fmt::print("digests seen, different  {}, {}\n", verdict.digests, verdict.wrong_digests);
  for (const std::string& problem : oracle.problems()) fmt::print("problem: {}\n", problem);
  const bool good = verdict.lost == 0 && verdict.twice == 0 && verdict.wrong_digests == 0 &&
                    oracle.problems().empty() && exit_code == 0 && kills > 0;
  fmt::print("{}\n", good ? "nothing acknowledged is missing" : "FAILED");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace tensorforge

int main(int argc, char** argv) {
  try {
    const std::chrono::seconds duration(argc > 1 ? std::stoul(argv[1]) : 30);
    const std::uint64_t seed = argc > 2 ? std::stoull(argv[2]) : std::random_device{}();
    return tensorforge::run(duration, seed);
  } catch (const std::exception& error) {
    fmt::print(stderr, "kill_loop: {}\n", error.what());
    return 1;
  }
}
