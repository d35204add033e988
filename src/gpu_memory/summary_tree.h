#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
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
/// A leaf has its keys in no order: a new one goes behind the others, and the last takes the place of one that is
/// erased. So neither moves the rest, and a search reads a leaf in a row, without one load that waits for another.
///
/// Nodes are merged with a neighbour when both together are half full or less, not kept at a strict minimum: the usual
/// bound on the height holds for sums of neighbours, and a set that shrinks and grows at one place does not thrash. A
/// key that has been alone since the set was empty needs no node: many sets of one key are cheap. Where a single leaf
/// is the whole tree, its summary is not computed anew when it loses a key: it may speak of keys that were there, which
/// costs a search a look at that leaf.
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
      root_ = {key, Traits::of(key), nullptr, 1};
      size_ = 1;
      return;
    }
    if (root_.node == nullptr) {
      Leaf* const first = nodes.leaves.make();
      first->items[0] = root_.low;
      root_.node = first;
    }
    Child right;
    if (insert_below(nodes, root_, height_, key, right)) {
      Inner* const grown = nodes.inners.make();
      grown->items[0] = root_;
      grown->items[1] = right;
      root_ = {root_.low, Traits::join(root_.summary, right.summary), grown, 2};
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
    if (height_ == 0 ? !take(root_, key) : erase_below(nodes, root_, height_, key) == Erased::Nothing) return false;
    --size_;
    while (height_ > 0 && root_.count == 1) {
      const Child only = children(root_)[0];
      nodes.give_back(inner(root_));
      root_ = only;
      --height_;
    }
    if (size_ == 0) {
      assert(height_ == 0);
      nodes.give_back(leaf(root_));
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
    for (unsigned height = height_; height > 0; --height) child = children(child).back();
    const std::span<Key> all = keys(child);
    return *std::max_element(all.begin(), all.end());
  }

 private:
  static constexpr std::size_t kCapacity = 32;

  struct Child {
    Key low{};  ///< no key below is lower, and none of the child before is as high
    Summary summary{};
    void* node{};         ///< null: `low` is the only key
    std::size_t count{};  ///< of the items in the node: here, so that what puts one there touches no other
  };
  template <class Item>
  struct alignas(64) Node {
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
  static Leaf* leaf(const Child& child) { return static_cast<Leaf*>(child.node); }
  static Inner* inner(const Child& child) { return static_cast<Inner*>(child.node); }
  static std::span<Key> keys(const Child& child) { return {leaf(child)->items.data(), child.count}; }
  static std::span<Child> children(const Child& child) { return {inner(child)->items.data(), child.count}; }

  static Summary summary_of(const Key& key) { return Traits::of(key); }
  static Summary summary_of(const Child& child) { return child.summary; }
  template <class Item>
  static Summary join_all(std::span<Item> items) {
    Summary all = summary_of(items[0]);
    for (const Item& item : items.subspan(1)) all = Traits::join(all, summary_of(item));
    return all;
  }
  /// The same where the items are some of those of which `before` is the join: it stops as soon as it has that.
  template <class Item>
  static Summary join_again(std::span<Item> items, const Summary& before) {
    Summary all = summary_of(items[0]);
    for (std::size_t i = 1; i < items.size() && all != before; ++i) all = Traits::join(all, summary_of(items[i]));
    return all;
  }
  /// The child in which `key` is, or would be.
  static std::size_t child_for(std::span<const Child> children, const Key& key) {
    const auto above = std::upper_bound(children.begin() + 1, children.end(), key,
                                        [](const Key& k, const Child& child) { return k < child.low; });
    return static_cast<std::size_t>(above - children.begin()) - 1;
  }

  static void insert_at(Child& parent, std::size_t at, const Child& child) {
    Child* const items = children(parent).data();
    std::copy_backward(items + at, items + parent.count, items + parent.count + 1);
    items[at] = child;
    ++parent.count;
  }
  static void erase_at(Child& parent, std::size_t at) {
    Child* const items = children(parent).data();
    std::copy(items + at + 1, items + parent.count, items + at);
    --parent.count;
  }

  /// How many items stay in a full node that is split. One that grows at its end is being filled in order: it stays
  /// nearly full.
  static std::size_t kept_in_split(bool grows_at_end) {
    return grows_at_end ? kCapacity - kCapacity / 8 : kCapacity / 2;
  }
  /// Moves what is behind the first `kept` items of a full node to a new one.
  template <class Item>
  static Child split(Slab<Node<Item>>& slab, Child& full, std::size_t kept, const Key& low) {
    const auto& items = static_cast<Node<Item>*>(full.node)->items;
    Node<Item>* const rest = slab.make();
    std::copy(items.begin() + kept, items.end(), rest->items.begin());
    full.count = kept;
    return {low, {}, rest, kCapacity - kept};
  }

  /// Puts `key` into the leaf of `parent`; true: it was split, and `right` is the new half.
  static bool put(Nodes& nodes, Child& parent, const Key& key, Child& right) {
    if (parent.count < kCapacity) {
      leaf(parent)->items[parent.count++] = key;
      parent.summary = Traits::join(parent.summary, Traits::of(key));
      return false;
    }
    const std::span<Key> all = keys(parent);
    const std::size_t kept = kept_in_split(*std::max_element(all.begin(), all.end()) < key);
    std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end());
    right = split(nodes.leaves, parent, kept, all[kept]);
    Child& home = key < right.low ? parent : right;
    leaf(home)->items[home.count++] = key;
    parent.summary = join_all(keys(parent));
    right.summary = join_all(keys(right));
    return true;
  }
  /// Puts `child` at `at` into the inner node of `parent`; true: it was split, and `right` is the new half.
  static bool put(Nodes& nodes, Child& parent, std::size_t at, const Child& child, Child& right) {
    if (parent.count < kCapacity) {
      insert_at(parent, at, child);
      parent.summary = Traits::join(parent.summary, child.summary);
      return false;
    }
    const std::size_t kept = kept_in_split(at == kCapacity);
    right = split(nodes.inners, parent, kept, children(parent)[kept].low);
    if (at <= kept) {
      insert_at(parent, at, child);
    } else {
      insert_at(right, at - kept, child);
    }
    parent.summary = join_all(children(parent));
    right.summary = join_all(children(right));
    return true;
  }

  static bool insert_below(Nodes& nodes, Child& parent, unsigned height, const Key& key, Child& right) {
    if (key < parent.low) parent.low = key;
    if (height == 0) return put(nodes, parent, key, right);
    const std::size_t i = child_for(children(parent), key);
    Child half;
    if (insert_below(nodes, children(parent)[i], height - 1, key, half) && put(nodes, parent, i + 1, half, right)) {
      return true;
    }
    parent.summary = Traits::join(parent.summary, Traits::of(key));
    return false;
  }

  /// Takes `key` out of the leaf of `parent`, whose summary stays; whether it was there.
  static bool take(Child& parent, const Key& key) {
    const std::span<Key> all = keys(parent);
    const auto found = std::ranges::find(all, key);
    if (found == all.end()) return false;
    *found = all.back();
    --parent.count;
    return true;
  }
  enum class Erased { Nothing, Unnoticed, Noticed };  ///< noticed: the parent has something to do
  static Erased erase_below(Nodes& nodes, Child& parent, unsigned height, const Key& key) {
    if (height == 0) return take(parent, key) ? summarise(parent, keys(parent)) : Erased::Nothing;
    const std::size_t i = child_for(children(parent), key);
    const Erased below = erase_below(nodes, children(parent)[i], height - 1, key);
    if (below != Erased::Noticed) return below;
    if (height == 1) {
      shrink<Leaf>(nodes, parent, i);
    } else {
      shrink<Inner>(nodes, parent, i);
    }
    return summarise(parent, children(parent));
  }
  template <class Item>
  static Erased summarise(Child& parent, std::span<Item> items) {
    if (items.empty()) return Erased::Noticed;
    const Summary before = parent.summary;
    parent.summary = join_again(items, before);
    return parent.summary == before && items.size() > kCapacity / 4 ? Erased::Unnoticed : Erased::Noticed;
  }
  /// After child `i` lost something: drops it when empty, or merges it with a neighbour when both are small.
  template <class Kind>
  static void shrink(Nodes& nodes, Child& parent, std::size_t i) {
    const std::span<Child> all = children(parent);
    if (all[i].count == 0) {
      nodes.give_back(static_cast<Kind*>(all[i].node));
      erase_at(parent, i);
    } else if (i + 1 < all.size() && all[i].count + all[i + 1].count <= kCapacity / 2) {
      merge<Kind>(nodes, parent, i);
    } else if (i > 0 && all[i - 1].count + all[i].count <= kCapacity / 2) {
      merge<Kind>(nodes, parent, i - 1);
    }
  }
  template <class Kind>
  static void merge(Nodes& nodes, Child& parent, std::size_t i) {
    Child& left = children(parent)[i];
    const Child& right = children(parent)[i + 1];
    auto* const moved = static_cast<Kind*>(right.node);
    std::copy_n(moved->items.begin(), right.count, static_cast<Kind*>(left.node)->items.begin() + left.count);
    left.count += right.count;
    left.summary = Traits::join(left.summary, right.summary);
    nodes.give_back(moved);
    erase_at(parent, i + 1);
  }

  template <class Condition>
  std::optional<Key> first(const Key* from, const Condition& condition) const {
    if (size_ == 0 || !condition(root_.summary)) return std::nullopt;
    if (root_.node != nullptr) return first_below(root_, height_, from, condition);
    if (from != nullptr && root_.low < *from) return std::nullopt;
    return root_.low;
  }

  /// `from` is null where every key below is known to be in range.
  template <class Condition>
  static std::optional<Key> first_below(const Child& parent, unsigned height, const Key* from,
                                        const Condition& condition) {
    if (height == 0) return first_in(keys(parent), from, condition);
    const std::span<Child> all = children(parent);
    for (std::size_t i = from == nullptr ? 0 : child_for(all, *from); i < all.size(); ++i, from = nullptr) {
      if (!condition(all[i].summary)) continue;
      // Only the first child can disappoint: the key that its summary speaks of may lie before `from`. (A leaf that is
      // the whole tree is nobody's child.)
      if (const auto found = first_below(all[i], height - 1, from, condition)) return found;
    }
    return std::nullopt;
  }
  template <class Condition>
  static std::optional<Key> first_in(std::span<const Key> keys, const Key* from, const Condition& condition) {
    std::optional<Key> lowest;
    for (const Key& key : keys) {
      if ((from == nullptr || !(key < *from)) && condition(Traits::of(key)) && (!lowest || key < *lowest)) lowest = key;
    }
    return lowest;
  }

  Child root_{};
  unsigned height_{};
  std::size_t size_{};
};

}  // namespace tensorforge::gpu_memory
