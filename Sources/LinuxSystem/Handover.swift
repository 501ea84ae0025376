import Synchronization

/// Carries a value that cannot be copied to whoever takes it first.
public final class Handover<Value: ~Copyable & Sendable>: Sendable {
    private let value: Mutex<Value?>

    /// Puts a value in.
    public init(_ value: consuming sending Value) {
        self.value = Mutex(consume value)
    }

    /// Takes the value out; nil when somebody has taken it.
    public func take() -> Value? {
        value.withLock { value in
            var taken: Value? = nil
            swap(&taken, &value)
            return taken
        }
    }
}
