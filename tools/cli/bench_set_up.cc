#include "bench_set_up.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <variant>

#include "connection.h"
#include "pipeline.h"
#include "program.h"

namespace tensorforge::cli::bench {
namespace {

constexpr std::size_t kWindow = 512;
constexpr std::uint64_t kPoolBytes = std::uint64_t{1} << 40U;

/// Keeps many requests in flight, by one thread.
class SetUp {
 public:
  SetUp(Connection& service, Run& run)
      : service_(service), run_(run), pipeline_(service.client(), kWindow), shares_(run.plan.clients) {}

  std::vector<Share> make() {
    const Plan& plan = run_.plan;
    if (plan.operation == Operation::Alloc || plan.operation == Operation::Mixed) make_pools();
    switch (plan.operation) {
      case Operation::Register:
        make_models(plan.live, "registered models:");
        break;
      case Operation::Get:
      case Operation::Mixed:
        find_models(std::max(plan.live, plan.keys));
        make_models(std::max(plan.live, plan.keys) - run_.models.size(), "registered models to read:");
        break;
      case Operation::Alloc:
        make_blocks();
        break;
      case Operation::Checkpoint:
        make_checkpoints();
        break;
    }
    pipeline_.drain();
    return std::move(shares_);
  }

 private:
  std::uint64_t pool_count() const { return std::min(run_.plan.clients, run_.plan.keys); }

  void make_pools() {
    const std::uint64_t bytes = std::max(kPoolBytes, run_.plan.live / pool_count() * kMaxBlockBytes);
    for (std::size_t i = 0; i < pool_count(); ++i) {
      service_.change(gpu_memory::CreatePool{{run_.device(i), bytes, 0, {}}}, {"bench", {}});
    }
  }

  void find_models(std::uint64_t wanted) {
    each_page(service_, query::ListModels{}, wanted, [&](Reply reply) {
      for (registry::ModelMetadata& model : Connection::result_as<result::Models>(std::move(reply)).models) {
        if (run_.models.size() < wanted) run_.models.emplace_back(std::move(model.model_id), model.version);
      }
      return run_.models.size() < wanted;
    });
  }

  void make_models(std::uint64_t count, const char* what) {
    Progress progress(what, count);
    for (std::uint64_t i = 0; i < count; ++i) {
      registry::PackedModel model = run_.next_model();
      if (run_.plan.operation != Operation::Register) {
        run_.models.emplace_back(model.view().model_id, model.view().version);
      }
      submit(registry::Command(registry::RegisterModel{std::move(model)}), [](const Reply&) {});
      progress.update(i);
    }
  }

  void make_blocks() {
    Progress progress("allocated blocks:", run_.plan.live);
    for (std::uint64_t i = 0; i < run_.plan.live; ++i) {
      const std::size_t client = i % shares_.size();
      submit(gpu_memory::Command(run_.next_block(client)), [this, client](const Reply& reply) {
        shares_[client].blocks.push_back(std::get<result::Allocated>(reply.result).block_id);
      });
      progress.update(i);
    }
  }

  void make_checkpoints() {
    Progress progress("created checkpoints:", run_.plan.live);
    for (std::uint64_t i = 0; i < run_.plan.live; ++i) {
      const std::size_t client = i % shares_.size();
      const std::uint64_t step = ++shares_[client].steps;
      submit(checkpoint::Command(run_.next_checkpoint(client, step)), [this](const Reply& reply) {
        created_.push_back(std::get<result::Checkpoints>(reply.result).checkpoints.at(0).checkpoint_id);
      });
      complete_created();
      progress.update(i);
    }
    pipeline_.drain();
    complete_created();
  }

  void complete_created() {
    for (std::string& id : std::exchange(created_, {})) {
      submit(checkpoint::Command(Run::completion_of(std::move(id))), [](const Reply&) {});
    }
  }

  template <class Handler>
  void submit(SingleCommand command, Handler handler) {
    pipeline_.submit(std::move(command), {{}, "bench"}, [handler = std::move(handler)](const client::Answer& answer) {
      if (!answer.status.ok()) throw refusal(answer.status);
      handler(answer.reply);
    });
  }

  Connection& service_;
  Run& run_;
  Pipeline pipeline_;
  std::vector<Share> shares_;
  std::vector<std::string> created_;
};

}  // namespace

std::vector<Share> set_up(Connection& service, Run& run) { return SetUp(service, run).make(); }

}  // namespace tensorforge::cli::bench
