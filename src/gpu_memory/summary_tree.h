#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "gpu_memory/slab.h"

namespace tensorforge::gpu_memory {

/// An ordered set of small keys that finds the first key which satisfies a condition, in O(log n).
///
/// It is a B+ tree whose inner nodes keep a summary of the keys below each child, so that a search passes by every
/// subtree in which nothing can satisfy the condition. `Traits` says what that means:
///   Key                  trivially copyable, ordered by <, with an == that agrees
///   Summary              trivially copyable
///   of(key) -> Summary
///   join(a, b) -> Summary: commutative, associative, join(a, a) = a
/// A condition is a predicate over summaries that holds for join(a, b) exactly when it holds for a or for b: "has this
/// bit set" where join is bitwise or, "is at most x" where join is the minimum.
///
/// A leaf has its keys in no order: one is added behind the others and leaves its place to the last, so that neither
/// moves the rest, and what a search reads of a leaf it reads in a row, without one load that waits for another.
///
/// Nodes are merged with a neighbour when both together are half full or less, not kept at a strict minimum: the usual
/// bound on the height holds for sums of neighbours, and a set that shrinks and grows at one place does not thrash. A
/// key that has been alone since the set was empty needs no node: many sets of one key are cheap. Nor is the summary
/// of a single leaf computed anew when it loses a key: it may then speak of keys that were there, which costs a search
/// a look at that leaf.
///
/// Nodes come from a `Nodes`, which many trees may share and which outlives them: a tree that ends gives none back.
///
/// Threads: none.
template <class Traits>
class SummaryTree {
 public:
  using Key = typename Traits::Key;
  using Summary = typename Traits::Summary;

  SummaryTree() = default;
  SummaryTree(SummaryTree&& other) noexcept
      : root_(std::exchange(other.root_, Child{})),
        height_(std::exchange(other.height_, 0U)),
        size_(std::exchange(other.size_, 0U)) {}
  SummaryTree& operator=(SummaryTree&& other) noexcept {
    std::swap(root_, other.root_);
    std::swap(height_, other.height_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  class Nodes;

  /// `key` must not be in the set.
  void insert(Nodes& nodes, const Key& key) {
    if (size_ == 0) {
      root_ = {key, Traits::of(key), nullptr};
      size_ = 1;
      return;
    }
    if (root_.node == nullptr) {
      auto* const first = nodes.leaves.make();
      first->items[0] = root_.low;
      first->count = 1;
      root_.node = first;
    }
    Child right;
    if (insert_below(nodes, root_, height_, key, right)) {
      auto* const grown = nodes.inners.make();
      grown->items[0] = root_;
      grown->items[1] = right;
      grown->count = 2;
      root_ = {root_.low, join_all(*grown), grown};
      ++height_;
    }
    ++size_;
  }

  /// Whether `key` was there.
  bool erase(Nodes& nodes, const Key& key) {
    if (size_ == 0) return false;
    if (root_.node == nullptr) {
      if (root_.low != key) return false;
      size_ = 0;
      return true;
    }
    if (height_ == 0 ? !take(leaf(root_), key) : erase_below(nodes, root_, height_, key) == Erased::Nothing)
      return false;
    --size_;
    while (height_ > 0 && inner(root_).count == 1) {
      const Child only = inner(root_).items[0];
      nodes.give_back(&inner(root_));
      root_ = only;
      --height_;
    }
    if (size_ == 0) {
      assert(height_ == 0);
      nodes.give_back(&leaf(root_));
      root_ = {};
    }
    return true;
  }

  /// The lowest key >= `from` for which `condition(of(key))` holds.
  template <class Condition>
  std::optional<Key> first(const Key& from, const Condition& condition) const {
    return first(&from, condition);
  }
  /// The lowest key of all for which it holds.
  template <class Condition>
  std::optional<Key> first_of_all(const Condition& condition) const {
    return first(nullptr, condition);
  }
  /// The lowest key >= `from`.
  std::optional<Key> first(const Key& from) const {
    return first(&from, [](const Summary&) { return true; });
  }
  /// The highest key.
  std::optional<Key> last() const {
    if (size_ == 0) return std::nullopt;
    if (root_.node == nullptr) return root_.low;
    Child child = root_;
    for (unsigned height = height_; height > 0; --height) child = inner(child).items[inner(child).count - 1];
    const Leaf& node = leaf(child);
    return *std::max_element(node.items.begin(), node.items.begin() + node.count);
  }

 private:
  static constexpr std::size_t kCapacity = 32;

  struct Child {
    Key low{};  ///< no key below is lower, and none of the child before is as high
    Summary summary{};
    void* node{};  ///< null: `low` is the only key
  };
  template <class Item>
  struct Node {
    std::size_t count{};
    std::array<Item, kCapacity> items{};
  };
  using Leaf = Node<Key>;
  using Inner = Node<Child>;

 public:
  class Nodes {
    friend SummaryTree;
    void give_back(Leaf* leaf) { leaves.give_back(leaf); }
    void give_back(Inner* inner) { inners.give_back(inner); }
    Slab<Leaf> leaves;
    Slab<Inner> inners;
  };

 private:
  static Leaf& leaf(const Child& child) { return *static_cast<Leaf*>(child.node); }
  static Inner& inner(const Child& child) { return *static_cast<Inner*>(child.node); }

  static Summary summary_of(const Key& key) { return Traits::of(key); }
  static Summary summary_of(const Child& child) { return child.summary; }
  template <class Item>
  static Summary join_all(const Node<Item>& node) {
    Summary all = summary_of(node.items[0]);
    for (std::size_t i = 1; i < node.count; ++i) all = Traits::join(all, summary_of(node.items[i]));
    return all;
  }
  /// The same where the items are some of those of which `before` is the join: what has reached it stays there.
  template <class Item>
  static Summary join_again(const Node<Item>& node, const Summary& before) {
    Summary all = summary_of(node.items[0]);
    for (std::size_t i = 1; i < node.count && all != before; ++i) all = Traits::join(all, summary_of(node.items[i]));
    return all;
  }
  /// The child in which `key` is, or would be.
  static std::size_t child_for(const Inner& node, const Key& key) {
    const auto above = std::upper_bound(node.items.begin() + 1, node.items.begin() + node.count, key,
                                        [](const Key& k, const Child& c) { return k < c.low; });
    return static_cast<std::size_t>(above - node.items.begin()) - 1;
  }

  static void insert_at(Inner& node, std::size_t at, const Child& item) {
    std::copy_backward(node.items.begin() + at, node.items.begin() + node.count, node.items.begin() + node.count + 1);
    node.items[at] = item;
    ++node.count;
  }
  static void erase_at(Inner& node, std::size_t at) {
    std::copy(node.items.begin() + at + 1, node.items.begin() + node.count, node.items.begin() + at);
    --node.count;
  }

  /// How many items stay in a full node that is split. One that grows at its end is being filled in order: it stays
  /// nearly full.
  static std::size_t kept_in_split(bool grows_at_end) {
    return grows_at_end ? kCapacity - kCapacity / 8 : kCapacity / 2;
  }
  /// Moves what is behind the first `kept` items of a full node to a new one.
  template <class Item>
  static Node<Item>* split(Slab<Node<Item>>& slab, Node<Item>& node, std::size_t kept) {
    auto* const half = slab.make();
    std::copy(node.items.begin() + kept, node.items.end(), half->items.begin());
    half->count = kCapacity - kept;
    node.count = kept;
    return half;
  }

  /// Puts `key` into the leaf of `parent`; true: it was split, and `right` is the new half.
  static bool put(Nodes& nodes, Child& parent, const Key& key, Child& right) {
    Leaf& node = leaf(parent);
    if (node.count < kCapacity) {
      node.items[node.count++] = key;
      parent.summary = Traits::join(parent.summary, Traits::of(key));
      return false;
    }
    const auto highest = std::max_element(node.items.begin(), node.items.end());
    const std::size_t kept = kept_in_split(*highest < key);
    std::nth_element(node.items.begin(), node.items.begin() + kept, node.items.end());
    const Key low = node.items[kept];
    Leaf* const half = split(nodes.leaves, node, kept);
    Leaf& home = key < low ? node : *half;
    home.items[home.count++] = key;
    parent.summary = join_all(node);
    right = {low, join_all(*half), half};
    return true;
  }
  /// Puts `child` at `at` into the inner node of `parent`; true: it was split, and `right` is the new half.
  static bool put(Nodes& nodes, Child& parent, std::size_t at, const Child& child, Child& right) {
    Inner& node = inner(parent);
    if (node.count < kCapacity) {
      insert_at(node, at, child);
      parent.summary = Traits::join(parent.summary, child.summary);
      return false;
    }
    const std::size_t kept = kept_in_split(at == kCapacity);
    Inner* const half = split(nodes.inners, node, kept);
    if (at <= kept) {
      insert_at(node, at, child);
    } else {
      insert_at(*half, at - kept, child);
    }
    parent.summary = join_all(node);
    right = {half->items[0].low, join_all(*half), half};
    return true;
  }

  static bool insert_below(Nodes& nodes, Child& parent, unsigned height, const Key& key, Child& right) {
    if (key < parent.low) parent.low = key;
    if (height == 0) return put(nodes, parent, key, right);
    Inner& node = inner(parent);
    const std::size_t i = child_for(node, key);
    Child split;
    if (insert_below(nodes, node.items[i], height - 1, key, split) && put(nodes, parent, i + 1, split, right)) {
      return true;
    }
    parent.summary = Traits::join(parent.summary, Traits::of(key));
    return false;
  }

  /// Takes `key` out of a leaf; whether it was there.
  static bool take(Leaf& node, const Key& key) {
    const auto end = node.items.begin() + node.count;
    const auto found = std::find(node.items.begin(), end, key);
    if (found == end) return false;
    *found = *(end - 1);
    --node.count;
    return true;
  }
  enum class Erased { Nothing, Unnoticed, Noticed };  ///< noticed: the parent has something to do
  static Erased erase_below(Nodes& nodes, Child& parent, unsigned height, const Key& key) {
    if (height == 0) {
      Leaf& node = leaf(parent);
      return take(node, key) ? summarise(parent, node) : Erased::Nothing;
    }
    Inner& node = inner(parent);
    const std::size_t i = child_for(node, key);
    const Erased below = erase_below(nodes, node.items[i], height - 1, key);
    if (below != Erased::Noticed) return below;
    if (height == 1) {
      shrink<Leaf>(nodes, node, i);
    } else {
      shrink<Inner>(nodes, node, i);
    }
    return summarise(parent, node);
  }
  template <class Item>
  static Erased summarise(Child& parent, const Node<Item>& node) {
    if (node.count == 0) return Erased::Noticed;
    const Summary before = parent.summary;
    parent.summary = join_again(node, before);
    return parent.summary == before && node.count > kCapacity / 4 ? Erased::Unnoticed : Erased::Noticed;
  }
  /// After child `i` of `node` lost something: drops it when empty, or merges it with a neighbour when both are small.
  template <class Kind>
  static void shrink(Nodes& nodes, Inner& node, std::size_t i) {
    const auto count = [&](std::size_t child) { return static_cast<Kind*>(node.items[child].node)->count; };
    if (count(i) == 0) {
      nodes.give_back(static_cast<Kind*>(node.items[i].node));
      erase_at(node, i);
    } else if (i + 1 < node.count && count(i) + count(i + 1) <= kCapacity / 2) {
      merge<Kind>(nodes, node, i);
    } else if (i > 0 && count(i - 1) + count(i) <= kCapacity / 2) {
      merge<Kind>(nodes, node, i - 1);
    }
  }
  template <class Kind>
  static void merge(Nodes& nodes, Inner& node, std::size_t i) {
    auto* const left = static_cast<Kind*>(node.items[i].node);
    auto* const right = static_cast<Kind*>(node.items[i + 1].node);
    std::copy(right->items.begin(), right->items.begin() + right->count, left->items.begin() + left->count);
    left->count += right->count;
    node.items[i].summary = Traits::join(node.items[i].summary, node.items[i + 1].summary);
    nodes.give_back(right);
    erase_at(node, i + 1);
  }

  template <class Condition>
  std::optional<Key> first(const Key* from, const Condition& condition) const {
    if (size_ == 0 || !condition(root_.summary)) return std::nullopt;
    if (root_.node != nullptr) return first_below(root_, height_, from, condition);
    if (from != nullptr && root_.low < *from) return std::nullopt;
    return root_.low;
  }

  template <class Condition>
  static std::optional<Key> first_in(const Leaf& node, const Key* from, const Condition& condition) {
    std::optional<Key> lowest;
    for (std::size_t i = 0; i < node.count; ++i) {
      const Key& key = node.items[i];
      if ((from == nullptr || !(key < *from)) && condition(Traits::of(key)) && (!lowest || key < *lowest)) lowest = key;
    }
    return lowest;
  }
  /// `from` is null where every key below is known to be in range.
  template <class Condition>
  static std::optional<Key> first_below(const Child& parent, unsigned height, const Key* from,
                                        const Condition& condition) {
    if (height == 0) return first_in(leaf(parent), from, condition);
    const Inner& node = inner(parent);
    for (std::size_t i = from == nullptr ? 0 : child_for(node, *from); i < node.count; ++i, from = nullptr) {
      if (!condition(node.items[i].summary)) continue;
      // Only the first child can disappoint: the key that its summary speaks of may lie before `from`.
      if (const auto found = first_below(node.items[i], height - 1, from, condition)) return found;
    }
    return std::nullopt;
  }

  Child root_{};
  unsigned height_{};
  std::size_t size_{};
};

}  // namespace tensorforge::gpu_memory
