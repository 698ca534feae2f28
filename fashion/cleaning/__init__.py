"""What a machine no longer needs: found by age, and removed on request. `fashion gc` is its command."""
