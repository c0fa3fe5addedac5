"""What is taken of a member cluster: types, namespaces, labels, values, and the file that says it."""
