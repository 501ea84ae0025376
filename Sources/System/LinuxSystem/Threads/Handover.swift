import Synchronization

/// A box that passes a noncopyable value to the first that takes it.
package final class Handover<Value: ~Copyable & Sendable>: Sendable {
    private let value: Mutex<Value?>

    package init(_ value: consuming sending Value) {
        self.value = Mutex(consume value)
    }

    /// Takes the value out; nil if it was taken before.
    package func take() -> Value? {
        value.withLock { value in
            var taken: Value? = nil
            swap(&taken, &value)
            return taken
        }
    }
}
