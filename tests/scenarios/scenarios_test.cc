// Runs each *.txt beside it: `> ` asks the service, the lines behind it that begin with `< ` are what it answers.
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/service_fixture.h"

namespace tensorforge::test {
namespace {

using Words = std::vector<std::string>;

std::uint64_t number(const std::string& text) { return std::stoull(text); }
registry::ModelVersion version(const std::string& text) { return registry::parse_version(text).value(); }

Command gpu(gpu_memory::Command command) { return SingleCommand(std::move(command)); }
Command saved(checkpoint::Command command) { return SingleCommand(std::move(command)); }

/// What a line asks for; nullopt: it is no command.
std::optional<Command> parse_command(const Words& words) {
  const std::map<std::string, std::function<Command(const Words&)>> commands = {
      {"register", [](const Words& w) { return register_model(w.at(1), version(w.at(2))); }},
      {"transition",
       [](const Words& w) {
         return transition(w.at(1), registry::parse_deployment_state(w.at(3)).value(), version(w.at(2)));
       }},
      {"validate",
       [](const Words& w) {
         registry::ValidationResult result{w.at(1), version(w.at(2)), true, 1, std::stod(w.at(3)), std::stod(w.at(4)),
                                           {}};
         return Command(SingleCommand(registry::Command(registry::RecordValidation{result})));
       }},
      {"pool", [](const Words& w) { return create_pool(w.at(1), number(w.at(2))); }},
      {"alloc", [](const Words& w) { return allocate(w.at(1), number(w.at(3)), w.at(2)); }},
      {"free", [](const Words& w) { return free_block(w.at(1), w.at(2)); }},
      {"cache", [](const Words& w) { return cache(w.at(1), w.at(2)); }},
      {"pin",
       [](const Words& w) {
         return gpu(gpu_memory::PinBlock{w.at(1), w.at(2)});
       }},
      {"unpin",
       [](const Words& w) {
         return gpu(gpu_memory::UnpinBlock{w.at(1), w.at(2)});
       }},
      {"evict", [](const Words& w) { return evict(w.at(1), number(w.at(2))); }},
      {"defragment", [](const Words& w) { return defragment(w.at(1)); }},
      {"save",
       [](const Words& w) {
         return create_checkpoint(w.at(1), number(w.at(3)), checkpoint::parse_checkpoint_type(w.at(2)).value());
       }},
      {"complete", [](const Words& w) { return complete(w.at(1), number(w.at(2)), w.at(3)); }},
      {"corrupt", [](const Words& w) { return corrupt(w.at(1)); }},
      {"remove", [](const Words& w) { return remove_checkpoint(w.at(1)); }},
      {"collect", [](const Words&) { return collect_garbage(); }},
      {"keep",
       [](const Words& w) {
         checkpoint::GcPolicy policy;
         policy.max_checkpoints_per_run = number(w.at(1));
         return saved(checkpoint::SetPolicy{std::nullopt, policy});
       }},
  };
  const auto found = commands.find(words.at(0));
  if (found == commands.end()) return std::nullopt;
  return found->second(words);
}

Query parse_query(const Words& words) {
  const std::map<std::string, std::function<Query(const Words&)>> queries = {
      {"models", [](const Words&) { return query::ListModels{}; }},
      {"best",
       [](const Words& w) {
         return query::BestModel{{w.begin() + 1, w.end()}};
       }},
      {"blocks",
       [](const Words& w) {
         return query::ListBlocks{w.at(1), {}};
       }},
      {"checkpoints",
       [](const Words& w) {
         return query::ListCheckpoints{w.at(1), {}};
       }},
      {"chain",
       [](const Words& w) {
         return query::RestorationChain{w.at(1), {}};
       }},
      {"restore-point",
       [](const Words& w) {
         checkpoint::RestoreCriteria criteria;
         criteria.training_run_id = w.at(1);
         return query::FindRestorePoint{criteria};
       }},
  };
  return queries.at(words.at(0))(words);
}

struct Teller {
  std::string operator()(const result::Done&) const { return "done"; }
  std::string operator()(const result::Registered& r) const {
    return fmt::format("registered {} {} {}", r.model_id, format_version(r.version), to_string(r.state));
  }
  std::string operator()(const result::Transitioned& r) const {
    return fmt::format("{} {}: {} to {}", r.model_id, format_version(r.version), to_string(r.from), to_string(r.to));
  }
  std::string operator()(const result::Allocated& r) const {
    return fmt::format("{} at {}, {} bytes, {} evicted", r.block_id, r.offset, r.actual_size, r.evicted_blocks);
  }
  std::string operator()(const result::Evicted& r) const {
    return fmt::format("{} bytes in {} blocks{}", r.freed_bytes, r.blocks, r.more ? ", more" : "");
  }
  std::string operator()(const result::Moves& r) const {
    std::string text = fmt::format("{} moved", r.moves.size());
    for (const auto& move : r.moves) text += fmt::format("\n  {} {} to {}", move.block_id, move.from, move.to);
    return text;
  }
  std::string operator()(const result::Collected& r) const {
    std::string text = fmt::format("{} deleted", r.deleted.size());
    for (const auto& each : r.deleted) text += fmt::format("\n  {} {}", each.checkpoint_id, each.storage_path);
    return text;
  }
  std::string operator()(const result::BatchResult& r) const {
    std::string text = fmt::format("batch of {}", r.replies.size());
    for (const Reply& reply : r.replies) text += "\n  " + std::visit(*this, reply.result);
    return text;
  }
  std::string operator()(const result::Models& r) const {
    std::string text = fmt::format("{} versions", r.models.size());
    for (const auto& m : r.models) {
      text += fmt::format("\n  {} {} {}", m.model_id, format_version(m.version), to_string(m.state));
    }
    return text;
  }
  std::string operator()(const result::BestModelFound& r) const {
    return r.model_id ? *r.model_id + " " + registry::format_version(r.version) : "none qualifies";
  }
  std::string operator()(const result::Blocks& r) const {
    std::string text = fmt::format("{} blocks", r.blocks.size());
    for (const auto& b : r.blocks) {
      text += fmt::format("\n  {} {}+{} {}", b.block_id, b.offset, b.size, to_string(b.status));
    }
    return text;
  }
  static std::string listed(const std::vector<checkpoint::CheckpointMeta>& all) {
    std::string text;
    for (const auto& c : all) {
      text += fmt::format("\n  {} {} step {} {}{}", c.checkpoint_id, to_string(c.checkpoint_type), c.step,
                          to_string(c.state), c.parent_id ? " on " + *c.parent_id : "");
    }
    return text;
  }
  std::string operator()(const result::Checkpoints& r) const {
    return fmt::format("{} checkpoints", r.checkpoints.size()) + listed(r.checkpoints);
  }
  std::string operator()(const result::Chain& r) const {
    return fmt::format("chain of {}, {} bytes", r.length, r.size_bytes) + listed(r.checkpoints);
  }
  std::string operator()(const auto&) const { return "an answer that scenarios do not tell"; }
};

std::string tell(const Reply& reply) {
  const std::string text = reply.status.ok() ? std::visit(Teller{}, reply.result) : reply.status.ToString();
  return fmt::format("#{} {}", reply.sequence, text);
}

Words words_of(const std::string& line) {
  std::istringstream in(line);
  Words words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

class Scenario : public ServiceTest {
 protected:
  /// `a ; b` is a batch. `restart` begins again from the log.
  std::string answer(const std::string& line) {
    if (line == "restart") {
      const Digest before = state().digest();
      restart();
      return state().digest() == before ? "the same state" : "ANOTHER STATE";
    }
    if (line.find(" ; ") == std::string::npos) {
      const Words words = words_of(line);
      const auto command = parse_command(words);
      return tell(command ? run(*command) : ask(parse_query(words)));
    }
    Batch batch;
    std::istringstream parts(line);
    for (std::string part; std::getline(parts, part, ';');) {
      batch.items.push_back({std::get<SingleCommand>(parse_command(words_of(part)).value()), std::nullopt});
    }
    return tell(run(Command(batch)));
  }
  /// The scenario with the answers that it really gets.
  std::string played(const std::filesystem::path& file) {
    std::ifstream in(file);
    std::string text;
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("< ")) continue;
      text += line + '\n';
      if (!line.starts_with("> ")) continue;
      std::istringstream told(answer(line.substr(2)));
      for (std::string each; std::getline(told, each);) text += "< " + each + '\n';
    }
    return text;
  }
};

TEST_F(Scenario, EachGoesAsItIsWritten) {
  int scenarios = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TENSORFORGE_SCENARIOS)) {
    if (entry.path().extension() != ".txt" || entry.path().filename() == "CMakeLists.txt") continue;
    SCOPED_TRACE(entry.path().filename().string());
    ++scenarios;
    number_ = 0;
    start({}, {});
    std::ifstream in(entry.path());
    const std::string written((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(played(entry.path()), written);
  }
  EXPECT_GE(scenarios, 3);
}

}  // namespace
}  // namespace tensorforge::test
