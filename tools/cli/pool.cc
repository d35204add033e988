// tensorforge pool: the memory of devices and the blocks in it.
#include "program.h"

namespace tensorforge::cli {
namespace {

const std::vector<Column> kBlockColumns{
    {"offset", "OFFSET"},    {"block_id", "BLOCK"},    {"status", "STATUS"},   {"size", "SIZE"},
    {"tensor_id", "TENSOR"}, {"priority", "PRIORITY"}, {"alignment", "ALIGN"}, {"last_accessed", "LAST ACCESSED"}};
const std::vector<Column> kMoveColumns{{"block_id", "BLOCK"}, {"from", "FROM"}, {"to", "TO"}, {"size", "SIZE"}};

struct Device {
  std::string device_id;
  std::optional<std::uint64_t> limit;
  ChangeOptions change;
};

void declare_device(Verb& verb, std::string& device_id) { verb.text("DEVICE", device_id, "The device")->required(); }

void add_create(Noun& pool) {
  struct Args {
    gpu_memory::GpuDevice device;
    ChangeOptions change;
  };
  auto args = std::make_shared<Args>();
  Verb verb = pool.verb("create", "Create the pool of a device",
                        "tensorforge pool create node1/gpu0 --memory 80GiB --clock-mhz 2619 --compute 9.0");
  declare_device(verb, args->device.device_id);
  verb.size("--memory", args->device.total_memory, "All its memory")->required();
  verb.whole32("--clock-mhz", args->device.memory_clock_mhz, "Clock of the memory");
  verb.value("--compute", args->device.compute_capability, parse_compute_capability, "Compute capability, such as 8.6");
  verb.change(args->change);
  verb.run([args](Context& context) { context.change(gpu_memory::CreatePool{args->device}, args->change); });
}

void add_list(Noun& pool) {
  auto limit = std::make_shared<std::optional<std::uint64_t>>();
  Verb verb = pool.verb("list", "List the pools", "tensorforge pool list");
  verb.limit(*limit);
  verb.run([limit](Context& context) {
    print_list(context, query::ListPools{}, &result::Pools::pools, *limit,
               {{"device_id", "DEVICE"},
                {"total_memory", "MEMORY"},
                {"memory_clock_mhz", "CLOCK MHZ"},
                {"compute_capability", "COMPUTE"}});
  });
}

void add_stats(Noun& pool) {
  auto args = std::make_shared<Device>();
  Verb verb = pool.verb("stats", "How full and how fragmented a pool is", "tensorforge pool stats node1/gpu0");
  declare_device(verb, args->device_id);
  verb.run([args](Context& context) { context.show(query::GetPoolStats{args->device_id}); });
}

void add_blocks(Noun& pool) {
  auto args = std::make_shared<Device>();
  Verb verb =
      pool.verb("blocks", "List all blocks of a pool by offset, Free ones too", "tensorforge pool blocks node1/gpu0");
  declare_device(verb, args->device_id);
  verb.limit(args->limit);
  verb.run([args](Context& context) {
    print_list(context, query::ListBlocks{args->device_id, {}}, &result::Blocks::blocks, args->limit, kBlockColumns);
  });
}

void add_tensor(Noun& pool) {
  struct Args : Device {
    std::string tensor_id;
  };
  auto args = std::make_shared<Args>();
  Verb verb = pool.verb("tensor", "List the blocks of a tensor", "tensorforge pool tensor node1/gpu0 kv-cache/17");
  declare_device(verb, args->device_id);
  verb.text("TENSOR", args->tensor_id, "The tensor")->required();
  verb.limit(args->limit);
  verb.run([args](Context& context) {
    print_list(context, query::BlocksForTensor{args->device_id, args->tensor_id, {}}, &result::Blocks::blocks,
               args->limit, kBlockColumns);
  });
}

struct OneBlock : Device {
  std::string block_id;
};

void declare_block(Verb& verb, OneBlock& args) {
  declare_device(verb, args.device_id);
  verb.text("BLOCK", args.block_id, "The block, as alloc gave it")->required();
}

void add_block(Noun& pool) {
  auto args = std::make_shared<OneBlock>();
  Verb verb = pool.verb("block", "Show one block", "tensorforge pool block node1/gpu0 b-0a1b2c3d-17");
  declare_block(verb, *args);
  verb.run([args](Context& context) { context.show(query::GetBlock{args->device_id, args->block_id}); });
}

/// A verb that takes a device and a block and sends `Order`.
template <class Order>
void add_block_change(Noun& pool, const std::string& name, const std::string& description) {
  auto args = std::make_shared<OneBlock>();
  Verb verb = pool.verb(name, description, "tensorforge pool " + name + " node1/gpu0 b-0a1b2c3d-17");
  declare_block(verb, *args);
  verb.change(args->change);
  verb.run([args](Context& context) { context.change(Order{args->device_id, args->block_id}, args->change); });
}

void add_alloc(Noun& pool) {
  struct Args : Device {
    gpu_memory::AllocationRequest request;
  };
  auto args = std::make_shared<Args>();
  Verb verb = pool.verb("alloc", "Allocate a block for a tensor",
                        "tensorforge pool alloc node1/gpu0 kv-cache/17 512MiB --align 256");
  declare_device(verb, args->device_id);
  verb.text("TENSOR", args->request.tensor_id, "The tensor")->required();
  verb.size("SIZE", args->request.size, "How many bytes")->required();
  verb.size("--align", args->request.alignment, "A power of two; default 1");
  verb.flag("--pinned", args->request.pinned, "Never to be evicted nor moved");
  verb.value("--priority", args->request.priority, parse_signed, "Evicts Cached blocks of this priority or below");
  verb.change(args->change);
  verb.run([args](Context& context) {
    context.change(gpu_memory::Allocate{args->device_id, args->request}, args->change);
  });
}

void add_evict(Noun& pool) {
  struct Args : Device {
    std::uint64_t needed{};
  };
  auto args = std::make_shared<Args>();
  Verb verb = pool.verb("evict", "Free Cached blocks, least recently accessed first, until BYTES are freed",
                        "tensorforge pool evict node1/gpu0 4GiB");
  declare_device(verb, args->device_id);
  verb.size("BYTES", args->needed, "How many to free")->required();
  verb.change(args->change);
  verb.run([args](Context& context) {
    result::Evicted total;
    Progress progress("evicted blocks:", 0);
    Change last = repeat<result::Evicted>(
        context.service(), args->change,
        [&] {
          return gpu_memory::Evict{args->device_id, args->needed - std::min(args->needed, total.freed_bytes)};
        },
        [&](const result::Evicted& part) {
          total.freed_bytes += part.freed_bytes;
          total.blocks += part.blocks;
          progress.update(total.blocks);
        });
    progress.clear();
    last.reply.result = total;
    context.out().object(to_json(last));
  });
}

void print_moves(Context& context, const Json& document) {
  if (context.out().format() != Format::Text) return context.out().object(document);
  Json summary = document;
  summary.erase("moves");
  context.out().object(summary);
  if (document["moves"].empty()) return;
  context.out().line("");
  List moves(context.out(), kMoveColumns);
  for (const Json& move : document["moves"]) moves.add(move);
  moves.finish();
}

void add_defrag(Noun& pool) {
  struct Args : Device {
    bool dry_run{};
  };
  auto args = std::make_shared<Args>();
  Verb verb = pool.verb("defrag", "Slide blocks down so that the free memory is in one piece",
                        "tensorforge pool defrag node1/gpu0 --dry-run");
  declare_device(verb, args->device_id);
  verb.flag("--dry-run", args->dry_run, "Only show the moves, the first 1,000 of them");
  verb.change(args->change);
  verb.run([args](Context& context) {
    if (args->dry_run) {
      return print_moves(context, to_json(context.service().ask(query::PlanDefragment{args->device_id}).result));
    }
    result::Moves total;
    Progress progress("moved blocks:", 0);
    Change last = repeat<result::Moves>(
        context.service(), args->change, [&] { return gpu_memory::Defragment{args->device_id}; },
        [&](const result::Moves& part) {
          total.moves.insert(total.moves.end(), part.moves.begin(), part.moves.end());
          progress.update(total.moves.size());
        });
    progress.clear();
    last.reply.result = std::move(total);
    print_moves(context, to_json(last));
  });
}

}  // namespace

void add_pool(CLI::App& app, Program& program) {
  Noun pool(app, program, "pool", "GPU memory: pools, blocks, eviction, defragmentation",
            "tensorforge pool stats node1/gpu0");
  add_create(pool);
  add_list(pool);
  add_stats(pool);
  add_blocks(pool);
  add_block(pool);
  add_tensor(pool);
  add_alloc(pool);
  add_block_change<gpu_memory::FreeBlock>(pool, "free", "Free a block");
  add_block_change<gpu_memory::CacheBlock>(pool, "cache", "Let a block be evicted when memory is needed");
  add_block_change<gpu_memory::PinBlock>(pool, "pin", "Never evict nor move a block");
  add_block_change<gpu_memory::UnpinBlock>(pool, "unpin", "Make a pinned block an ordinary one");
  add_block_change<gpu_memory::TouchBlock>(pool, "touch", "Say that a block was just accessed");
  add_evict(pool);
  add_defrag(pool);
  add_pool_replay(pool);
}

}  // namespace tensorforge::cli
