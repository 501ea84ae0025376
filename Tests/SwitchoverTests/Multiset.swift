/// Elements without an order, each as often as it was inserted.
struct Multiset<Element: Hashable>: Hashable, Sequence, ExpressibleByArrayLiteral {
    private var elements: [Element] = []

    init(arrayLiteral elements: Element...) {
        self.elements = elements
    }

    var isEmpty: Bool { elements.isEmpty }

    mutating func insert(_ element: Element) {
        elements.append(element)
    }

    /// Removes one of the equal elements.
    mutating func remove(_ element: Element) {
        if let index = elements.firstIndex(of: element) { elements.remove(at: index) }
    }

    mutating func removeAll() {
        elements = []
    }

    /// Each element once.
    var distinct: [Element] {
        elements.indices.filter { !elements[..<$0].contains(elements[$0]) }.map { elements[$0] }
    }

    func makeIterator() -> IndexingIterator<[Element]> { elements.makeIterator() }

    static func == (one: Multiset, other: Multiset) -> Bool {
        guard one.elements.count == other.elements.count else { return false }
        if one.elements == other.elements { return true }
        var rest = other.elements
        for element in one.elements {
            guard let index = rest.firstIndex(of: element) else { return false }
            rest.remove(at: index)
        }
        return true
    }

    func hash(into hasher: inout Hasher) {
        hasher.combine(elements.reduce(0) { $0 ^ $1.hashValue })
    }
}
