// tensorforge checkpoint: checkpoints of training runs, their chains and their collection.
#include <iterator>

#include "program.h"

namespace tensorforge::cli {
namespace {

const std::vector<Column> kCheckpointColumns{
    {"checkpoint_id", "CHECKPOINT"}, {"step", "STEP"},        {"epoch", "EPOCH"},
    {"checkpoint_type", "TYPE"},     {"state", "STATE"},      {"size_bytes", "SIZE"},
    {"created_at", "CREATED"},       {"parent_id", "PARENT"}, {"metrics", "METRICS"},
    {"storage_path", "PATH"}};

struct OneCheckpoint {
  std::string checkpoint_id;
  ChangeOptions change;
};
struct OneRun {
  std::string training_run_id;
  std::optional<std::uint64_t> limit;
};

void declare_id(Verb& verb, std::string& id) { verb.text("ID", id, "The checkpoint, as create gave it")->required(); }
void declare_run(Verb& verb, std::string& run) { verb.text("RUN", run, "The training run")->required(); }

void add_create(Noun& checkpoint) {
  struct Args {
    checkpoint::CreateCheckpointRequest request;
    ChangeOptions change;
  };
  auto args = std::make_shared<Args>();
  Verb verb = checkpoint.verb("create", "Begin a checkpoint; the answer names its parent if it is incremental",
                              "tensorforge checkpoint create bert/7 --epoch 3 --step 1200 --type incremental "
                              "--metric loss=0.42");
  declare_run(verb, args->request.training_run_id);
  verb.whole32("--epoch", args->request.epoch, "Epoch of the run")->required();
  verb.whole("--step", args->request.step, "Step of the run")->required();
  verb.enumerator("--type", args->request.checkpoint_type, "full (default), incremental or emergency");
  verb.metrics("--metric", args->request.metrics, "KEY=NUMBER; may be given many times");
  verb.change(args->change);
  verb.run([args](Context& context) { context.change(checkpoint::CreateCheckpoint{args->request}, args->change); });
}

void add_complete(Noun& checkpoint) {
  struct Args : OneCheckpoint {
    std::uint64_t size_bytes{};
    std::string path;
  };
  auto args = std::make_shared<Args>();
  Verb verb =
      checkpoint.verb("complete", "Say that a checkpoint is whole and where it lies",
                      "tensorforge checkpoint complete ck-0a1b2c3d-4 --size 1.5GiB --path s3://runs/bert/7/1200");
  declare_id(verb, args->checkpoint_id);
  verb.size("--size", args->size_bytes, "How large it is")->required();
  verb.text("--path", args->path, "Where it lies")->required();
  verb.change(args->change);
  verb.run([args](Context& context) {
    context.change(checkpoint::CompleteCheckpoint{args->checkpoint_id, args->size_bytes, args->path}, args->change);
  });
}

/// A verb that takes a checkpoint and sends `Order`.
template <class Order>
void add_order(Noun& checkpoint, const std::string& name, const std::string& description) {
  auto args = std::make_shared<OneCheckpoint>();
  Verb verb = checkpoint.verb(name, description, "tensorforge checkpoint " + name + " ck-0a1b2c3d-4");
  declare_id(verb, args->checkpoint_id);
  verb.change(args->change);
  verb.run([args](Context& context) { context.change(Order{args->checkpoint_id}, args->change); });
}

void add_get(Noun& checkpoint) {
  auto args = std::make_shared<OneCheckpoint>();
  Verb verb =
      checkpoint.verb("get", "Show a checkpoint, a deleted one too", "tensorforge checkpoint get ck-0a1b2c3d-4");
  declare_id(verb, args->checkpoint_id);
  verb.run([args](Context& context) { context.show(query::GetCheckpoint{args->checkpoint_id}); });
}

void add_list(Noun& checkpoint) {
  auto args = std::make_shared<OneRun>();
  Verb verb = checkpoint.verb("list", "List the checkpoints of a run by step", "tensorforge checkpoint list bert/7");
  declare_run(verb, args->training_run_id);
  verb.limit(args->limit);
  verb.run([args](Context& context) {
    print_list(context, query::ListCheckpoints{args->training_run_id, {}}, &result::Checkpoints::checkpoints,
               args->limit, kCheckpointColumns);
  });
}

void add_latest(Noun& checkpoint) {
  auto args = std::make_shared<OneRun>();
  Verb verb = checkpoint.verb("latest", "Show the latest complete checkpoint of a run, restorable or not",
                              "tensorforge checkpoint latest bert/7");
  declare_run(verb, args->training_run_id);
  verb.run([args](Context& context) { context.show(query::LatestCheckpoint{args->training_run_id}); });
}

void add_restore_point(Noun& checkpoint) {
  struct Args {
    checkpoint::RestoreCriteria criteria;
    bool allow_incomplete{};
  };
  auto args = std::make_shared<Args>();
  checkpoint::RestoreCriteria& criteria = args->criteria;
  Verb verb = checkpoint.verb("restore-point", "Select the checkpoint to go on from",
                              "tensorforge checkpoint restore-point bert/7 --max-step 1000 --prefer-full");
  declare_run(verb, criteria.training_run_id);
  verb.whole32("--max-epoch", criteria.max_epoch, "Not above this epoch");
  verb.whole("--max-step", criteria.max_step, "Not above this step");
  verb.flag("--prefer-full", criteria.prefer_full, "A full one before a later incremental one");
  verb.flag("--allow-incomplete", args->allow_incomplete, "One that is still being made will do");
  verb.run([args](Context& context) {
    args->criteria.require_complete = !args->allow_incomplete;
    context.show(query::FindRestorePoint{args->criteria});
  });
}

void print_chain(Context& context, const Json& chain) {
  if (context.out().format() != Format::Text) return context.out().object(chain);
  List list(context.out(), kCheckpointColumns);
  for (const Json& link : chain["checkpoints"]) list.add(link);
  list.finish();
  Json summary = chain;
  summary.erase("checkpoints");
  context.out().line("");
  context.out().object(summary);
}

void add_chain(Noun& checkpoint) {
  auto args = std::make_shared<OneCheckpoint>();
  Verb verb = checkpoint.verb("chain", "List what must be restored for a checkpoint, its root first",
                              "tensorforge checkpoint chain ck-0a1b2c3d-4");
  declare_id(verb, args->checkpoint_id);
  verb.run([args](Context& context) {
    result::Chain chain;
    each_page(context.service(), query::RestorationChain{args->checkpoint_id, {}}, std::nullopt, [&](Reply reply) {
      auto page = Connection::result_as<result::Chain>(std::move(reply));
      std::vector<checkpoint::CheckpointMeta> links = std::move(chain.checkpoints);
      std::move(page.checkpoints.begin(), page.checkpoints.end(), std::back_inserter(links));
      page.checkpoints = std::move(links);
      chain = std::move(page);  // its figures are of the whole chain
      return true;
    });
    print_chain(context, to_json(ReplyResult(std::move(chain))));
  });
}

void add_validate(Noun& checkpoint) {
  auto args = std::make_shared<OneCheckpoint>();
  Verb verb = checkpoint.verb("validate", "Check a checkpoint and its chain; exit code 4 where they do not hold",
                              "tensorforge checkpoint validate ck-0a1b2c3d-4");
  declare_id(verb, args->checkpoint_id);
  verb.run([args](Context& context) {
    const auto verdict = context.service().ask_for<result::Verdict>(query::ValidateCheckpoint{args->checkpoint_id});
    Json json{{"valid", verdict.holds}};
    if (!verdict.problem.empty()) json["problem"] = verdict.problem;
    context.out().object(json);
    if (!verdict.holds) throw Failure{Exit::VerificationFailed, absl::FailedPreconditionError(verdict.problem)};
  });
}

void add_due(Noun& checkpoint) {
  struct Args : OneRun {
    std::uint64_t step{};
    std::optional<std::uint64_t> interval;
  };
  auto args = std::make_shared<Args>();
  Verb verb = checkpoint.verb("due", "Whether a run should save at a step",
                              "tensorforge checkpoint due bert/7 --step 1300 --interval 100");
  declare_run(verb, args->training_run_id);
  verb.whole("--step", args->step, "The step that the run is at")->required();
  verb.whole("--interval", args->interval, "Steps between checkpoints; default: the service's");
  verb.run([args](Context& context) {
    context.show(query::CheckpointDue{args->training_run_id, args->step, args->interval});
  });
}

void add_find(Noun& checkpoint) {
  struct Args : OneRun {
    std::string metric_key;
    double threshold{};
    bool descending{};
  };
  auto args = std::make_shared<Args>();
  Verb verb =
      checkpoint.verb("find", "List the complete checkpoints whose metric is at or below a threshold, best first",
                      "tensorforge checkpoint find bert/7 accuracy 0.9 --descending");
  declare_run(verb, args->training_run_id);
  verb.text("METRIC", args->metric_key, "The metric")->required();
  verb.real("THRESHOLD", args->threshold, "Where to draw the line")->required();
  verb.flag("--descending", args->descending, "Higher is better: at or above the threshold");
  verb.limit(args->limit);
  verb.run([args](Context& context) {
    print_list(context,
               query::FindCheckpoints{args->training_run_id, args->metric_key, args->threshold, !args->descending, {}},
               &result::Checkpoints::checkpoints, args->limit, kCheckpointColumns);
  });
}

void add_gc(Noun& checkpoint) {
  auto change = std::make_shared<ChangeOptions>();
  Verb verb =
      checkpoint.verb("gc", "Delete what the policies let go, of every run; prints what may be erased from storage",
                      "tensorforge checkpoint gc --json");
  verb.change(*change);
  verb.run([change](Context& context) {
    result::Collected total;
    Progress progress("deleted checkpoints:", 0);
    Change last = repeat<result::Collected>(
        context.service(), *change, [] { return checkpoint::CollectGarbage{}; },
        [&](const result::Collected& part) {
          total.deleted.insert(total.deleted.end(), part.deleted.begin(), part.deleted.end());
          progress.update(total.deleted.size());
        });
    progress.clear();
    last.reply.result = total;
    if (context.out().format() != Format::Text) return context.out().object(to_json(last));
    List list(
        context.out(),
        {{"checkpoint_id", "DELETED"}, {"training_run_id", "RUN"}, {"size_bytes", "SIZE"}, {"storage_path", "PATH"}});
    std::uint64_t bytes = 0;
    for (const result::DeletedCheckpoint& deleted : total.deleted) {
      list.add(to_json(deleted));
      bytes += deleted.size_bytes;
    }
    list.finish();
    context.out().object({{"deleted", total.deleted.size()},
                          {"size_bytes", bytes},
                          {"sequence", last.reply.sequence},
                          {"request_id", last.request_id}});
  });
}

void add_policy(Noun& checkpoint) {
  Noun policy = checkpoint.noun("policy", "What gc deletes: one default, and one per run",
                                "tensorforge checkpoint policy set bert/7 --max-checkpoints 5");
  struct Args {
    std::optional<std::string> training_run_id;
    checkpoint::GcPolicy policy;
    bool descending{};
    ChangeOptions change;
  };
  auto args = std::make_shared<Args>();
  Verb get = policy.verb("get", "Show the policy of a run, or the default", "tensorforge checkpoint policy get bert/7");
  get.text("RUN", args->training_run_id, "The training run; without it the default");
  get.run([args](Context& context) { context.show(query::GetPolicy{args->training_run_id}); });

  Verb set = policy.verb("set", "Set the policy of a run, or the default, as a whole: what is not given is 0",
                         "tensorforge checkpoint policy set bert/7 --max-checkpoints 5 --keep-best-n 2 "
                         "--metric-key loss");
  set.text("RUN", args->training_run_id, "The training run; without it the default");
  set.whole("--max-checkpoints,--max-checkpoints-per-run", args->policy.max_checkpoints_per_run,
            "Complete ones to keep; 0: no limit");
  set.whole("--max-age-seconds", args->policy.max_age_seconds, "Delete what is older; 0: never");
  set.whole("--keep-best-n", args->policy.keep_best_n, "Keep this many of the best by a metric");
  set.text("--metric-key", args->policy.metric_key, "That metric; lower is better");
  set.flag("--metric-descending", args->descending, "Higher is better");
  set.change(args->change);
  set.run([args](Context& context) {
    args->policy.metric_ascending = !args->descending;
    context.change(checkpoint::SetPolicy{args->training_run_id, args->policy}, args->change);
  });
}

}  // namespace

void add_checkpoint(CLI::App& app, Program& program) {
  Noun checkpoint(app, program, "checkpoint", "Checkpoints of training runs: chains, restore points, collection",
                  "tensorforge checkpoint list bert/7");
  add_create(checkpoint);
  add_complete(checkpoint);
  add_order<checkpoint::CorruptCheckpoint>(checkpoint, "corrupt", "Say that a checkpoint is damaged");
  add_get(checkpoint);
  add_list(checkpoint);
  add_latest(checkpoint);
  add_restore_point(checkpoint);
  add_chain(checkpoint);
  add_validate(checkpoint);
  add_due(checkpoint);
  add_find(checkpoint);
  add_gc(checkpoint);
  add_policy(checkpoint);
  add_order<checkpoint::RemoveCheckpoint>(checkpoint, "remove", "Delete a checkpoint that nothing descends from");
}

}  // namespace tensorforge::cli
